"""A connection to Postgres that counts what passes: statements, round trips, commits, as the wire shows them.

async with CountingProxy(database_url) as proxy:
    ...                 # whoever is counted connects to proxy.url
    before = proxy.counts()
    ...
    proxy.counts().since(before)
    proxy.statements    # the SQL of each statement, in order

It reads the frontend's and the backend's messages, so it counts every client alike, whatever library it uses.
Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit

_WRITING = re.compile(r"\bas \(\s*(insert|update|delete)\b")
"""A query that writes before it selects."""
_UNTYPED = {80877103, 80877104}
"""Requests for encryption, which the server declines in one byte; the client then sends its startup message."""


class Counts(NamedTuple):
    """What has passed so far."""

    statements: int
    """Executions, BEGIN and COMMIT among them; what prepares a statement is not counted."""
    round_trips: int
    """How often a client waited for an answer."""
    commits: int
    """Transactions that ended with COMMIT, or statements of their own that changed rows."""

    def since(self, before: Counts) -> Counts:
        """Return what passed in between."""
        return Counts(*(new - old for new, old in zip(self, before, strict=True)))


class CountingProxy:
    """Listens on a port of its own and passes bytes on."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._round_trips = self._commits = 0
        self.statements: list[str] = []
        """The SQL of each execution, in order."""

    @property
    def url(self) -> str:
        """The address to connect to instead of the server's."""
        assert self._server is not None
        user, _, _ = self._parts.netloc.rpartition("@")
        port = self._server.sockets[0].getsockname()[1]
        return urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{port}"))

    def counts(self) -> Counts:
        """Return what has passed so far."""
        return Counts(len(self.statements), self._round_trips, self._commits)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        session = _Session(self._executed, self._waited, self._committed)
        try:
            server, to_server = await asyncio.open_connection(self._parts.hostname, self._parts.port)
            answers = asyncio.create_task(_copy(server, writer, session.backend))
            try:
                await _copy(reader, to_server, session.frontend)
            finally:
                answers.cancel()
                await asyncio.wait({answers})
                to_server.close()
        except OSError:
            pass  # one end went away, and so does the other
        finally:
            writer.close()
            self._tasks.discard(task)

    def _executed(self, sql: str) -> None:
        self.statements.append(sql)

    def _waited(self) -> None:
        self._round_trips += 1

    def _committed(self) -> None:
        self._commits += 1


class _Session:
    """Follows one connection."""

    def __init__(
        self, executed: Callable[[str], None], waited: Callable[[], None], committed: Callable[[], None]
    ) -> None:
        self._executed, self._waited, self._committed = executed, waited, committed
        self._sql_of: dict[bytes, str] = {}
        self._bound = ""
        self._is_started = False
        self._declined = 0
        self._has_changed = False
        self._from_client, self._from_server = bytearray(), bytearray()

    def frontend(self, data: bytes) -> None:
        """Read what the client sends."""
        buffer = self._from_client
        buffer += data
        while not self._is_started:
            if len(buffer) < 8 or len(buffer) < (length := int.from_bytes(buffer[:4], "big")):
                return
            if int.from_bytes(buffer[4:8], "big") in _UNTYPED:
                self._declined += 1
            else:
                self._is_started = True
            del buffer[:length]
        for kind, body in _messages(buffer):
            self._sent(kind, body)

    def backend(self, data: bytes) -> None:
        """Read what the server answers."""
        self._from_server += data
        while self._declined and self._from_server:
            assert self._from_server[:1] == b"N", "the server encrypts, so nothing can be counted"
            del self._from_server[:1]
            self._declined -= 1
        for kind, body in _messages(self._from_server):
            if kind == b"C":
                tag = body.rstrip(b"\x00").split(b" ")
                if tag[0] == b"COMMIT":
                    self._committed()
                    self._has_changed = False
                elif (tag[0] in (b"INSERT", b"UPDATE", b"DELETE") and tag[-1] != b"0") or _WRITING.search(self._bound):
                    self._has_changed = True
            elif kind == b"Z":
                if body == b"I" and self._has_changed:
                    self._committed()
                if body == b"I":
                    self._has_changed = False

    def _sent(self, kind: bytes, body: bytes) -> None:
        if kind == b"P":
            name, sql = body.split(b"\x00", 2)[:2]
            self._sql_of[name] = sql.decode()
        elif kind == b"B":
            self._bound = self._sql_of.get(body.split(b"\x00", 2)[1], "")
        elif kind == b"E":
            self._executed(self._bound)
        elif kind == b"Q":
            self._bound = ""
            self._executed(body.rstrip(b"\x00").decode())
        if kind in (b"S", b"H", b"Q"):
            self._waited()


def _messages(buffer: bytearray) -> list[tuple[bytes, bytes]]:
    """Take the whole messages off the buffer's beginning."""
    messages, at = [], 0
    while len(buffer) - at >= 5:
        end = at + 1 + int.from_bytes(buffer[at + 1 : at + 5], "big")
        if end > len(buffer):
            break
        messages.append((bytes(buffer[at : at + 1]), bytes(buffer[at + 5 : end])))
        at = end
    del buffer[:at]
    return messages


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None]) -> None:
    try:
        while data := await reader.read(262_144):
            look(data)
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the other end is gone
    finally:
        writer.close()
