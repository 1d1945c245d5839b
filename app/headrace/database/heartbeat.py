"""The heartbeat of a process: a row that says which code it runs, as long as it lives.

`headrace migrate --phase post` takes away what only older code needs, so it refuses while a process that does not know
the migration was seen within `ALIVE_SECONDS`. A process that cannot reach the database for so long counts as gone; when
it comes back, it refuses to work on the newer schema as soon as it connects again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress

from headrace import sql
from headrace.database.migrate import ALIVE_SECONDS, expected_version
from headrace.database.pool import ConnectionFactory
from headrace.errors import StateError
from headrace.stopping import end_tasks
from headrace.version import VERSION

BEAT_SECONDS = ALIVE_SECONDS / 4


def process_name() -> str:
    """Return a name for this process that no other has: host, process id, start."""
    return f"{socket.gethostname()}/{os.getpid()}/{time.time_ns():x}"


class Heartbeat:
    """Beats until it is stopped; `name` is what claims call this process."""

    def __init__(self, lend: ConnectionFactory, name: str, role: str) -> None:
        self._lend = lend
        self._row = (name, role, VERSION, expected_version("post"))
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Be known from now on. Raises: StateError."""
        await self._beat()
        self._task = asyncio.create_task(self._run(), name="heartbeat")

    async def stop(self) -> None:
        """Be gone. Never raises."""
        if self._task is not None:
            await end_tasks({self._task}, 1.0)
        with suppress(StateError):
            async with self._lend() as connection:
                await connection.execute(sql.process.FORGET, self._row[0])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            with suppress(StateError):  # an outage: whoever needs the database says so
                await self._beat()

    async def _beat(self) -> None:
        async with self._lend() as connection:
            await connection.execute(sql.process.BEAT, *self._row)
