"""One PostgreSQL for all tests of a process, and a fresh database for each of them.

The server starts when it is first asked for, in a thread that lives until the end. It waits for no disk, and what it
holds is thrown away. A database is a copy of one that has the platform's tables, and the team's own if there are any;
a copy takes some hundredths of a second.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from headrace.database.embedded import EmbeddedPostgres
from headrace.database.migrate import migrate
from headrace.database.pool import open_session
from headrace.settings import Settings
from headrace.testing.loop import Loop

Schema = str | Callable[[str], object] | None
"""A team's own tables: SQL, or a function that is called with the address of the database in which it makes them."""


class PostgresForTests:
    """The server of a test run. Every method may be called from any thread."""

    def __init__(self, schema: Schema = None) -> None:
        self._schema = schema
        self._loop = Loop()
        self._folder: Path | None = None
        self._server: EmbeddedPostgres | None = None
        self._address = ""
        self._template: str | None = None

    @contextmanager
    def database(self) -> Iterator[str]:
        """Lend a fresh database; yields its address."""
        address = self._loop.run(self._create)
        try:
            yield address
        finally:
            self._loop.run(partial(self._drop, address))

    async def lend(self) -> tuple[str, Callable[[], Awaitable[object]]]:
        """Return the address of a fresh database, and what drops it: what the platform's `scratch.lender` does."""
        address = await self._elsewhere(self._create)
        return address, lambda: self._elsewhere(partial(self._drop, address))

    def stop(self) -> None:
        """End the server, and throw away what it holds."""
        if self._server is not None:
            self._loop.run(self._server.stop)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._loop.close()

    async def _elsewhere(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return await asyncio.to_thread(self._loop.run, work)

    async def _create(self) -> str:
        template = self._template or await self._make_template()
        return await self._copy(template)

    async def _make_template(self) -> str:
        """Start the server, and make the database that the others are copies of."""
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-testing-"))
        self._server = EmbeddedPostgres(self._folder / "postgres", is_durable=False)
        self._address = await self._server.start()
        address = await self._copy("template1")
        await migrate(address, "pre")
        if isinstance(self._schema, str):
            await _execute(address, self._schema)
        elif self._schema is not None:
            made = await asyncio.to_thread(self._schema, address)
            if asyncio.iscoroutine(made):
                await made
        self._template = urlsplit(address).path[1:]
        return self._template

    async def _copy(self, template: str) -> str:
        name = f"test_{secrets.token_hex(6)}"
        await _execute(self._address, f"create database {name} template {template} strategy file_copy")
        return urlunsplit(urlsplit(self._address)._replace(path=f"/{name}"))

    async def _drop(self, address: str) -> None:
        await _execute(self._address, f"drop database if exists {urlsplit(address).path[1:]} with (force)")


async def _execute(address: str, sql: str) -> None:
    connection = await open_session(Settings(), address, idle_seconds=60.0)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
