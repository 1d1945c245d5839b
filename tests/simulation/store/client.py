"""The client: a pool of connections with the part of asyncpg's interface that the engine uses."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import asyncpg

from tests.simulation.loop import Loop, Process
from tests.simulation.store.server import Command, Server


class Connection:
    """One connection of a process."""

    def __init__(self, loop: Loop, server: Server, process: Process | None, idle_seconds: float) -> None:
        self._loop = loop
        self.server = server
        self.session = server.connect(process, idle_seconds, self._lose)
        self.is_lost = False
        self._answer: asyncio.Future[Any] | None = None
        self.depth = 0
        self.is_cut_short = False
        """True if nobody waited for the end of a command."""

    def keep_own(self) -> None:
        """Leave nothing in the session: the model has nothing that could be left."""

    def hand_over(self) -> None:
        """Likewise."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        status: str = (await self.call("run", query, *args))[0]
        return status

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]:
        rows: list[Any] = (await self.call("run", query, *args))[1]
        return rows

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        rows = await self.fetch(query, *args)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        row = await self.fetchrow(query, *args)
        return row[0] if row is not None else None

    def transaction(self) -> _Block:
        return _Block(self)

    def is_closed(self) -> bool:
        return self.is_lost

    def terminate(self) -> None:
        """Close at once; the server finds out later."""
        self._lose(asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"))
        self._loop.outside(self.server.latency(), self.server.end, self.session)

    async def call(self, kind: str, query: str = "", *args: Any) -> Any:
        """Send a command and return its answer."""
        if self.is_lost:
            raise asyncpg.InterfaceError("connection is closed")
        answer = self._answer = self._loop.create_future()
        command = Command(kind, query, args, answer)
        self.server.send(self.session, self.server.receive, command)
        try:
            return await answer
        except asyncio.CancelledError:
            self.is_cut_short = True
            self.server.send(self.session, self.server.cancel, command)
            raise

    def lose(self) -> None:
        """Let the connection break for the client; the server knows nothing of it yet."""
        self._lose(ConnectionResetError("connection reset by peer"))

    def _lose(self, error: Exception) -> None:
        self.is_lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class _Block:
    """A transaction, or a savepoint within one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._is_outer = connection.depth == 0

    async def __aenter__(self) -> None:
        await self._connection.call("begin" if self._is_outer else "savepoint")
        self._connection.depth += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.depth -= 1
        if kind is None:
            await self._connection.call("commit" if self._is_outer else "release_savepoint")
        else:
            await self._connection.call("rollback" if self._is_outer else "rollback_to")


class Pool:
    """A process's connections, a few at most."""

    def __init__(self, loop: Loop, server: Server, size: int, idle_seconds: float) -> None:
        self._loop = loop
        self.server = server
        self._size = size
        self._idle_seconds = idle_seconds
        self._places = asyncio.Semaphore(size)
        self._free: list[Connection] = []
        self.used: list[Connection] = []
        self.process: Process | None = None

    def acquire(self) -> _Loan:
        """Lend a connection. Raises: OSError (the server is down)."""
        return _Loan(self)

    async def lend(self) -> Connection:
        """Wait for a place, and return a connection that is given back later."""
        await self._places.acquire()
        try:
            connection = await self._take()
        except BaseException:
            self._places.release()
            raise
        self.used.append(connection)
        return connection

    async def _take(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.is_lost:
                return connection
        await asyncio.sleep(self.server.latency() * 3)
        if self.server.is_down:
            raise ConnectionRefusedError("connection refused")
        return Connection(self._loop, self.server, self.process, self._idle_seconds)

    def give_back(self, connection: Connection) -> None:
        """Keep the connection; what a transaction left open is rolled back, as a pool's reset does."""
        self.used.remove(connection)
        self._places.release()
        if connection.is_lost:
            return
        if connection.depth or connection.is_cut_short:
            connection.depth, connection.is_cut_short = 0, False
            self.server.send(connection.session, self.server.receive, _reset(self._loop))
        self._free.append(connection)

    def connections(self) -> list[Connection]:
        """Return those that live."""
        return [each for each in [*self.used, *self._free] if not each.is_lost]

    def get_max_size(self) -> int:
        return self._size

    def get_size(self) -> int:
        return len(self.used) + len(self._free)

    def get_idle_size(self) -> int:
        return len(self._free)


class _Loan:
    """A connection of a pool for the length of a block."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.lend()
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        self._pool.give_back(self._connection)


def _reset(loop: Loop) -> Command:
    return Command("rollback", "", (), loop.create_future())
