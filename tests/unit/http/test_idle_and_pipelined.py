"""An idle connection is closed, whatever came after its answer, and few requests may queue in one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from headrace.http.connection import BoundedProtocol, bounded
from headrace.settings import IngestSettings
from tests.support.waiting import until

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"
SMALL = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
MANY = 2_000
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Answer before the body was read, as a route does whose caller has no key."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def connected(app: Any) -> AsyncIterator[tuple[BoundedProtocol, Streams]]:
    """Yield what serves the application to one client, whose connection may be idle for a moment, and the client."""
    config = Config(app, http=bounded(IngestSettings()), lifespan="off", log_config=None, timeout_keep_alive=0)
    config.load()
    made: list[BoundedProtocol] = []

    def make() -> asyncio.Protocol:
        protocol = config.http_protocol_class(config, ServerState(), {})
        assert isinstance(protocol, BoundedProtocol)
        made.append(protocol)
        return protocol

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    async with server:
        client = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            await until(lambda: bool(made), "the connection is taken")
            yield made[0], client
        finally:
            client[1].close()
            made[0].transport.abort()


async def test_idle_after_a_body_that_nobody_read_is_closed() -> None:
    async with connected(refuse) as (protocol, (reader, writer)):
        protocol.timeout_keep_alive = 3_600
        writer.write(HEAD)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
        protocol.timeout_keep_alive = 0
        writer.write(b"{}")
        async with asyncio.timeout(10):
            assert await reader.read() == b""


async def test_idle_after_a_stray_line_end_is_closed() -> None:
    async with connected(refuse) as (protocol, (reader, writer)):
        protocol.timeout_keep_alive = 3_600
        writer.write(SMALL)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
        protocol.timeout_keep_alive = 0
        writer.write(b"\r\n")
        async with asyncio.timeout(10):
            assert await reader.read() == b""


async def test_requests_that_queue_in_a_connection_are_bounded() -> None:
    answered = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await answered.wait()

    async with connected(slow) as (protocol, (reader, writer)):
        writer.write(SMALL * MANY)
        await until(lambda: bool(protocol.pipeline), "requests queue")
        queued = len(protocol.pipeline)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        assert queued < MANY / 2
        answered.set()
