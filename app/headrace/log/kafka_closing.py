"""Closes aiokafka's consumers whatever state they are in; their own stop() does not manage while a broker is away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer

STOP_SECONDS = 5.0
STEP_SECONDS = 1.0


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and disconnect. Never raises.

    stop() waits for a rebalance under way, which can take minutes, and it lets through the CancelledError of a fetch of
    its own that was waiting to try again. Then its parts are closed one by one, and the group is still told.
    """
    if await _is_done(consumer.stop(), STOP_SECONDS):
        return
    if consumer._coordinator is not None and hasattr(consumer._coordinator, "_maybe_leave_group"):
        await _is_done(consumer._coordinator._maybe_leave_group(), STEP_SECONDS)
    if consumer._fetcher is not None:
        tasks = [consumer._fetcher._fetch_task, *consumer._fetcher._pending_tasks]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STEP_SECONDS)
    await _is_done(consumer._client.close(), STEP_SECONDS)


async def _is_done(step: Coroutine[Any, Any, None], seconds: float) -> bool:
    """Run the step as a task of its own, so that what it raises, or is cancelled by, stays there."""
    task = asyncio.get_running_loop().create_task(step)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=STEP_SECONDS)
        return False
    return not task.cancelled() and task.exception() is None
