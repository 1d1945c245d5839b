"""A connection to Postgres that can be cut exactly in COMMIT: the case in which nobody knows what became of it.

async with PostgresProxy(database_url) as proxy:
    ...                            # the platform works through proxy.url
    proxy.drop_answer_to_commit()  # the next COMMIT happens, and its answer is lost
    proxy.drop_commit()            # the next COMMIT is lost itself
"""

from __future__ import annotations

import asyncio
from enum import Enum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from tests.support.commits import Commits, is_done


class _Cut(Enum):
    NONE = 0
    ANSWER = 1
    COMMIT = 2
    BEHIND = 3


class PostgresProxy:
    """Listens on a port of its own and passes bytes on; `cuts` counts the connections it has cut."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._cut = _Cut.NONE
        self._tasks: set[asyncio.Task[None]] = set()
        self.cuts = 0

    @property
    def url(self) -> str:
        """The address to connect to instead of the server's."""
        assert self._server is not None
        user, _, _ = self._parts.netloc.rpartition("@")
        port = self._server.sockets[0].getsockname()[1]
        return urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{port}"))

    def drop_answer_to_commit(self) -> None:
        """Let the next transaction commit, and cut its connection before the answer."""
        self._cut = _Cut.ANSWER

    def drop_commit(self) -> None:
        """Cut the next transaction's connection before its COMMIT reaches the server."""
        self._cut = _Cut.COMMIT

    def cut_behind_commit(self) -> None:
        """Let the next transaction commit, and cut its connection when it is asked for something else."""
        self._cut = _Cut.BEHIND

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
        try:
            upstream = await asyncio.open_connection(self._parts.hostname, self._parts.port)
            try:
                await self._serve(reader, writer, *upstream)
            finally:
                upstream[1].close()
        except (OSError, asyncio.IncompleteReadError):
            pass  # one end went away, and so does the other
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _serve(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        answers, is_doomed, commits = asyncio.create_task(_copy(server, to_client)), False, Commits()
        try:
            while data := await client.read(65_536):
                if is_doomed:
                    return
                is_commit = commits.is_commit(data)
                if is_commit and self._cut is _Cut.BEHIND:
                    is_doomed, self._cut = True, _Cut.NONE
                    self.cuts += 1
                elif is_commit and self._cut is not _Cut.NONE:
                    cut, self._cut = self._cut, _Cut.NONE
                    self.cuts += 1
                    answers.cancel()  # all that came before is answered: what commits is sent alone
                    await asyncio.wait({answers})
                    if cut is _Cut.ANSWER:
                        to_server.write(data)
                        await _swallow_answer(client, server, to_server)
                    return
                to_server.write(data)
                await to_server.drain()
        finally:
            answers.cancel()
            await asyncio.wait({answers})


async def _swallow_answer(
    client: asyncio.StreamReader, server: asyncio.StreamReader, to_server: asyncio.StreamWriter
) -> None:
    """Read the server's answer, while what the client has still to send of its message goes there."""
    rest, answer = asyncio.create_task(_copy(client, to_server)), b""
    try:
        while not is_done(answer) and (more := await server.read(65_536)):
            answer += more
    finally:
        rest.cancel()
        await asyncio.wait({rest})


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the other end is gone
    writer.close()  # not if this is cancelled: then the connection is cut later, or not at all
