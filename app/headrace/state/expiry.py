"""Removes states whose time is over, in small batches. No read sees them meanwhile: every query looks at their end.

They stay for `GRACE` more. A batch that read a state in its last second may still write it: the row's version is there
to be compared.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from headrace import sql
from headrace.database.pool import ConnectionFactory
from headrace.telemetry.logging import get_logger
from headrace.telemetry.metrics import OTHER, Metrics

logger = get_logger("headrace.state")

EVERY_SECONDS = 30.0
ROWS = 1_000
"""Removed by one statement, which is its own transaction."""
PAUSE_SECONDS = 0.1
"""Between two full batches, so that they leave the database to others."""
GRACE = timedelta(minutes=10)

Count = Callable[[str, str, int], None]
"""(group, state, rows): told of rows that were removed."""


async def remove_expired(lend: ConnectionFactory, count: Count) -> None:
    """Remove what has expired until cancelled. Whatever fails is a warning and waits for the next time."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            await remove_all(lend, count)
        except Exception as error:
            logger.warning("expired states wait", error=f"{type(error).__name__}: {error}")


async def remove_all(lend: ConnectionFactory, count: Count, grace: timedelta = GRACE) -> None:
    """Remove all that has expired for so long. Raises: StateError."""
    is_full = True
    while is_full:
        gone = await remove_some(lend, grace)
        for (group, state), rows in gone.items():
            count(group, state, rows)
        is_full = gone.total() == ROWS
        await asyncio.sleep(PAUSE_SECONDS * is_full)


async def remove_some(lend: ConnectionFactory, grace: timedelta = GRACE) -> Counter[tuple[str, str]]:
    """Remove the states that expired first, at most ROWS; return how many by group and name. Raises: StateError."""
    async with lend() as connection:
        rows = await connection.fetch(sql.state.EXPIRE, grace, ROWS)
    return Counter({(row["subscription"], row["state"]): row["rows"] for row in rows})


def counter(metrics: Metrics, service: str) -> Count:
    """Return what counts removed states in the metrics; those of other services are of the subscription `other`."""

    def count(group: str, state: str, rows: int) -> None:
        owner, _, name = group.partition(".")
        labels = {"subscription": name, "state": state} if owner == service else {"subscription": OTHER, "state": OTHER}
        metrics.states_expired_total.labels(**labels).inc(rows)

    return count
