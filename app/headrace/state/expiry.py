"""Removes states whose time is over, in small batches. No read sees them meanwhile: every query looks at their end.

They stay for `GRACE` more. A batch that read a state in its last second may still write it: the row's version is there
to be compared.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from headrace import sql
from headrace.database.pool import ConnectionFactory
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.state")

EVERY_SECONDS = 30.0
ROWS = 1_000
"""Removed by one statement, which is its own transaction."""
PAUSE_SECONDS = 0.1
"""Between two full batches, so that they leave the database to others."""
GRACE = timedelta(minutes=10)


async def remove_expired(lend: ConnectionFactory) -> None:
    """Remove what has expired until cancelled. Whatever fails is a warning and waits for the next time."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            await remove_all(lend)
        except Exception as error:
            logger.warning("expired states wait", error=f"{type(error).__name__}: {error}")


async def remove_all(lend: ConnectionFactory, grace: timedelta = GRACE) -> None:
    """Remove all that has expired for so long. Raises: StateError."""
    is_full = True
    while is_full:
        is_full = await remove_some(lend, grace) == ROWS
        await asyncio.sleep(PAUSE_SECONDS * is_full)


async def remove_some(lend: ConnectionFactory, grace: timedelta = GRACE) -> int:
    """Remove the states that expired first, at most ROWS, and return how many. Raises: StateError."""
    async with lend() as connection:
        status = await connection.execute(sql.state.EXPIRE, grace, ROWS)
    return int(status.rpartition(" ")[2])
