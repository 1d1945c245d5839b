"""What holds a worker up: a gate in a handler, a lock in Postgres; and time that passes and must not matter."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from headrace.runtime import Runtime
from tests.support.platform import (
    value,
)
from tests.support.waiting import until


class Gate:
    """Stops a handler at event 1 of the page `held`, until it is opened; `entered` tells that it is there."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._opened = threading.Event()

    def __call__(self, event: Any) -> None:
        if (event.page, event.number) == ("held", 1):
            self.entered.set()
            assert self._opened.wait(60)

    def open(self) -> None:
        """Let it pass, and all that come after it."""
        self._opened.set()


@asynccontextmanager
async def locked(database_url: str, table: str) -> AsyncIterator[asyncpg.Connection]:
    """Lock a table against everybody; yields the connection that holds the lock."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute(f"lock table {table} in access exclusive mode")
            yield connection
    finally:
        await connection.close()


async def is_waiting_for_a_lock(runtime: Runtime) -> bool:
    """True when a session of the platform's database waits for a lock."""
    sql = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    return bool(await value(runtime, sql))


async def let_pass(seconds: float) -> None:
    """Let time pass, which must make no difference."""
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > seconds, "time passes")


async def die(runtime: Runtime) -> None:
    """End every worker as a kill of its process does: at once, with nothing written and nothing released."""
    for consumer in runtime.consumers.values():
        for worker in consumer.workers.values():
            assert worker._task is not None
            worker._task.cancel()
            await asyncio.wait({worker._task})
        consumer.workers.clear()


async def leave_dead_owners(pool: asyncpg.Pool, topic: str, crashes: int) -> None:
    """Leave the claim of partition 0 of the notebook's notes as so many owners that died at offset 0 leave it."""
    await pool.execute(
        "insert into headrace.claim (subscription, topic, partition, epoch, token, owner, claimed_offset, next_offset, "
        "crashes, is_applying) values ('notebook.notes', $1, 0, 1, gen_random_uuid(), 'dead', 0, 0, $2, true)",
        topic,
        crashes,
    )
