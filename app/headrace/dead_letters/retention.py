"""Dead letters expire some days after they were settled; open ones stay."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from headrace import sql
from headrace.database.pool import ConnectionFactory
from headrace.dead_letters.decisions import expire
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.dead_letters")

EVERY_SECONDS = 3600.0


async def keep_days(lend: ConnectionFactory, days: int) -> NoReturn:
    """Let expire what was settled more than `days` days ago, every hour, until cancelled. A failure waits for the next.

    Answers of steps leave with it, if their effects were given up on."""
    while True:
        try:
            async with lend() as connection:
                if expired := await expire(connection, days):
                    logger.info("settled dead letters have expired", letters=expired)
                await connection.execute(sql.step.EXPIRE, days)
        except Exception as error:
            logger.warning("settled dead letters are kept", error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(EVERY_SECONDS)
