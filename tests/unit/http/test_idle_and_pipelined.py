"""An idle connection is closed, whatever came after its answer, and few requests may queue in one."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from headrace.http import connection
from tests.support.connection import connected
from tests.support.waiting import until

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"
SMALL = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
MANY = 2_000


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Answer before the body was read, as a route does whose caller has no key."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(("request_head", "more"), [(HEAD, b"{}"), (SMALL, b"\r\n")], ids=["body", "stray line end"])
async def test_idle_after_what_nobody_read_is_closed(request_head: bytes, more: bytes) -> None:
    async with connected(refuse) as (protocol, (reader, writer)):
        protocol.timeout_keep_alive = 3_600
        writer.write(request_head)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
        protocol.timeout_keep_alive = 0
        writer.write(more)
        async with asyncio.timeout(10):
            assert await reader.read() == b""


@pytest.mark.parametrize("name", ["timeout_keep_alive_handler", "_head_is_late"])
async def test_request_that_waits_to_be_read_is_not_idle(name: str) -> None:
    """A loop that is late looks at its timers first: closing now would lose what the client has sent in time."""
    async with connected(refuse) as (protocol, (reader, writer)):
        protocol.timeout_keep_alive = 3_600
        for _ in range(2):
            writer.write(SMALL)  # and no turn of the loop before the timer
            getattr(protocol, name)()
            async with asyncio.timeout(10):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
        getattr(protocol, name)()
        async with asyncio.timeout(10):
            assert await reader.read() == b"", "now it is idle"


async def test_part_of_a_head_that_waits_has_a_deadline_again() -> None:
    async with connected(refuse, header_seconds=0.05) as (protocol, (reader, writer)):
        assert protocol._deadline is not None
        protocol._deadline.cancel()
        writer.write(b"GET / HT")
        protocol._head_is_late()
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


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


@pytest.mark.parametrize(
    "more", [b"GET / HT", SMALL * MANY, SMALL.replace(b"Host", b"Connection: close\r\nHost"), b"?!"]
)
async def test_who_is_refused_and_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch, more: bytes) -> None:
    """What waits to be sent would hold the connection for ever, since it is closed only behind that."""
    monkeypatch.setattr(connection, "LEAVING_SECONDS", 0.05)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"40000")]})
        await send({"type": "http.response.body", "body": b"x" * 40_000})

    async with connected(answer, header_seconds=0.05) as (protocol, (reader, writer)):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        protocol.timeout_keep_alive = 3_600
        protocol.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        writer.write(SMALL)
        await until(protocol.transport.get_write_buffer_size, "an answer waits to be sent")
        writer.write(more)
        await until(lambda: protocol not in protocol.connections, "the connection is gone", 10)
