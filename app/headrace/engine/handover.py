"""How a partition moves to another process without a batch being lost.

The group gives it to another member; its owner says that it is letting go (`tell_leaving`), ends its transaction and
removes its name from the claim. The next owner waits for that: a batch that it fenced would have to be run again. For
an owner that does not say that it is letting go it waits a second only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from headrace import sql
from headrace.engine.context import EngineContext
from headrace.errors import StateError
from headrace.handlers.subscription import Subscription
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

TELLING_SECONDS = 2.0
"""A transaction that holds the claim's row ends by itself; its next owner waits for the row."""
SILENT_SECONDS = 1.0
"""How long an owner is waited for that does not say that it is letting go: it may not have heard yet, or be dead."""
LOOK_SECONDS = 0.05
"""Between two looks whether the former owner has let go, at first; later a tenth of what was waited."""


async def tell_leaving(context: EngineContext, subscription: Subscription, numbers: Sequence[int]) -> None:
    """Let the next owners of some partitions wait for their release. Never raises: without it they wait less."""
    try:
        async with asyncio.timeout(TELLING_SECONDS), context.connection() as connection:
            await connection.execute(
                sql.claim.LEAVE, subscription.group, list(numbers), list(subscription.topics), context.owner
            )
    except (StateError, TimeoutError) as error:
        logger.warning("the next owners could not be told", subscription=subscription.name, error=str(error))


async def wait_for_the_former_owner(
    context: EngineContext, subscription: Subscription, partition: int, touch: Callable[[], None]
) -> None:
    """Return when no other process holds the claims of the partition number, or when its time is up.

    In that case its transaction will be fenced. Raises: StateError.
    """
    began = time.monotonic()
    patience = context.settings.engine.batch_seconds + context.settings.kafka.heartbeat_seconds
    while True:
        async with context.connection() as connection:
            is_leaving = await connection.fetchval(
                sql.claim.HOLDER, subscription.group, partition, list(subscription.topics), context.owner
            )
        waited = time.monotonic() - began
        if is_leaving is None or waited > (patience if is_leaving else SILENT_SECONDS):
            return
        touch()
        await asyncio.sleep(max(LOOK_SECONDS, waited / 10))
