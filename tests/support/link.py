"""A TCP connection that can be disturbed: between the processes of the machine and their servers.

    async with Link(5432) as link:
        link.delay_seconds = 0.2         # each piece of data comes so much later
        link.is_open = False             # a black hole: nothing arrives, and nobody is told
        link.reset()                     # every connection breaks, new ones are taken
    link.server_port = 5433          # new connections go to another server, as after a failover
        link.at_commit = drop_answer     # the next COMMIT to Postgres is the function's business

A link of one process tells the server which one that is: its connections come from `address_of(process)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from tests.support.commits import Commits, is_done

BYTES = 262_144


@dataclass(eq=False)
class Connection:
    """One connection: from the process to the link, and on to the server."""

    client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    unheard: asyncio.Event | None = None
    """If there is one, answers are thrown away, and it is set when the server has committed."""

    def abort(self) -> None:
        """Break it at both ends."""
        self.to_client.transport.abort()
        self.to_server.transport.abort()


AtCommit = Callable[[Connection, bytes], Awaitable[bool]]
"""Handles the message of a COMMIT that was not passed on yet. Returns True if it is to be passed on."""


def address_of(process: int) -> str:
    """Return the loopback address from which a link connects for a process."""
    return f"127.{64 + (process >> 16)}.{process >> 8 & 255}.{process & 255}"


def process_at(address: str | None) -> int:
    """Return the process that has an address; 0 if none has."""
    _, high, middle, low = map(int, (address or "127.0.0.1").split("."))
    return (high - 64 << 16 | middle << 8 | low) if high >= 64 else 0


def through(link: Link, url: str) -> str:
    """Return the address of a server as its clients name it who come through the link."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{link.port}"))


class Link:
    """Listens on `port` and passes bytes on to the server's."""

    def __init__(
        self,
        server_port: int,
        port: int = 0,
        *,
        who: Callable[[], int] | None = None,
    ) -> None:
        """`who` tells the process that the next connection belongs to."""
        self.server_port = server_port
        self.port = port
        self._who = who
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()
        self._opened = asyncio.Event()
        self._opened.set()
        self.delay_seconds = 0.0
        self.at_commit: AtCommit | None = None

    @property
    def is_open(self) -> bool:
        """False while nothing passes."""
        return self._opened.is_set()

    @is_open.setter
    def is_open(self, value: bool) -> None:
        self._opened.set() if value else self._opened.clear()

    def reset(self) -> None:
        """Break every connection."""
        for connection in list(self._connections):
            connection.abort()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        source = None if self._who is None else (address_of(self._who()), 0)
        task = asyncio.create_task(self._pass_on(client, to_client, source))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: to_client.close())  # also if the task was cancelled before it began

    async def _pass_on(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter, source: tuple[str, int] | None
    ) -> None:
        try:
            await self._opened.wait()
            server, to_server = await asyncio.open_connection("127.0.0.1", self.server_port, local_addr=source)
            connection = Connection(client, to_client, server, to_server)
            self._connections.add(connection)
            try:
                await self._serve(connection)
            finally:
                self._connections.discard(connection)
                to_server.close()
        except (OSError, asyncio.IncompleteReadError):
            pass  # one end went away, and so does the other

    async def _serve(self, connection: Connection) -> None:
        answers, commits = asyncio.create_task(self._answer(connection)), Commits()
        try:
            while data := await connection.client.read(BYTES):
                await self._hold()
                if commits.is_commit(data) and self.at_commit is not None:
                    at_commit, self.at_commit = self.at_commit, None
                    if not await at_commit(connection, data):
                        return
                connection.to_server.write(data)
                await connection.to_server.drain()
        finally:
            answers.cancel()
            await asyncio.wait({answers})

    async def _answer(self, connection: Connection) -> None:
        try:
            while data := await connection.server.read(BYTES):
                await self._hold()
                if connection.unheard is None:
                    connection.to_client.write(data)
                    await connection.to_client.drain()
                elif is_done(data):
                    connection.unheard.set()
        except OSError:
            pass  # the other end is gone
        finally:
            connection.to_client.close()

    async def _hold(self) -> None:
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if not self._opened.is_set():
            await self._opened.wait()
