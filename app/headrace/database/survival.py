"""An embedded PostgreSQL that died alone is restarted; the platform is unready meanwhile.

The kernel's memory killer picks the largest process, which may be the database. What was committed survives, and the
batches in flight are repeated.
"""

from __future__ import annotations

import asyncio
import time

from headrace.backoff import Backoff
from headrace.database.embedded import EmbeddedPostgres
from headrace.errors import ConfigurationError
from headrace.telemetry.health import Health
from headrace.telemetry.logging import get_logger

REASON = "database_restarting"
POLL_SECONDS = 0.2
RESTARTS = 5
"""Restarts in a row after which the process is beyond repair."""
STEADY_SECONDS = 60.0
"""A server that ran this long since its last restart has recovered: the next death counts as the first."""

logger = get_logger("headrace")


async def keep_running(server: EmbeddedPostgres, health: Health) -> None:
    """Restart the server whenever it has died; after five restarts in a row the process is beyond repair.

    Runs until it is cancelled, or until it gives up.
    """
    backoff = Backoff(0.5, 10.0)
    started_at = time.monotonic()
    while True:
        await asyncio.sleep(POLL_SECONDS)
        if server.pid is not None:
            continue
        if time.monotonic() - started_at > STEADY_SECONDS:
            backoff.reset()
        if not await _restart(server, health, backoff):
            return
        started_at = time.monotonic()
        health.ready(REASON)
        logger.info("the embedded PostgreSQL runs again", pid=server.pid)


async def _restart(server: EmbeddedPostgres, health: Health, backoff: Backoff) -> bool:
    """Try until it runs; False if it was tried too often."""
    found = server.last_words()
    while backoff.failures < RESTARTS:
        seconds = backoff.next_seconds()
        health.not_ready(REASON, f"The embedded PostgreSQL died and is being restarted; it said: {found}")
        logger.error("the embedded PostgreSQL died, it is restarted", attempt=backoff.failures, said=found)
        await asyncio.sleep(seconds)
        try:
            await server.restart()
            return True
        except (ConfigurationError, OSError) as error:
            found = str(error)
    health.fail("embedded_database", f"The embedded PostgreSQL died {RESTARTS} times in a row: {found}")
    return False
