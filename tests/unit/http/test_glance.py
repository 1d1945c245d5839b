"""While nothing further may come in, whole requests are refused at a glance; all others are read as ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headrace.http.connection import BoundedProtocol
from headrace.http.glance import Glance
from tests.support.connection import Streams, connected
from tests.support.waiting import until

PATH = "/events/thing.made"
HEAD = b"POST /events/thing.made HTTP/1.1\r\nHost: localhost\r\n"
WHOLE = HEAD + b"Content-Length: 2\r\n\r\n{}"
GET = b"GET /events/thing.made HTTP/1.1\r\nHost: localhost\r\n\r\n"
UNUSUAL = {
    "get": GET,
    "without its body's end": WHOLE[:-1],
    "without its head's end": HEAD,
    "two": WHOLE * 2,
    "more behind it": WHOLE + b"POS",
    "closing": WHOLE.replace(b"Host", b"Connection: close\r\nHost"),
    "of HTTP/1.0": WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "upgrade": GET.replace(b"Host", b"Connection: upgrade\r\nUpgrade: websocket\r\nHost"),
    "no HTTP": b"?!\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 1\r\n\r\n{}",
    "nothing": b"",
}


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
def test_only_a_whole_post_has_a_path(data: bytes) -> None:
    glance = Glance()
    assert glance.path_of_post(WHOLE) == PATH
    assert glance.path_of_post(data) is None
    assert glance.path_of_post(WHOLE) == PATH, "what was not whole is forgotten"


def test_body_in_chunks_is_whole_too() -> None:
    assert Glance().path_of_post(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n") == PATH


@asynccontextmanager
async def _full(app: Any) -> AsyncIterator[tuple[BoundedProtocol, Streams]]:
    """Yield what serves one client, and the client, of a process that lets nothing further in on PATH."""
    async with connected(app) as (protocol, client):
        protocol.timeout_keep_alive = 3_600
        protocol.pressure.accepted(PATH)
        protocol.pressure.is_full = lambda: True  # type: ignore[method-assign]
        async with asyncio.timeout(10):
            yield protocol, client


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
    return int(head.split()[1])


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def test_whole_request_is_refused_again_and_again() -> None:
    async with _full(_answer) as (protocol, (reader, writer)):
        for _ in range(3):
            writer.write(WHOLE)
            assert await _status(reader) == 429
        assert protocol._deadline is None, "the connection is idle, not late with a request"
        writer.write(GET)
        assert await _status(reader) == 202
        writer.write(WHOLE)
        assert await _status(reader) == 429


async def test_request_is_accepted_once_there_is_room() -> None:
    async with _full(_answer) as (protocol, (reader, writer)):
        protocol.pressure.is_full = lambda: False  # type: ignore[method-assign]
        writer.write(WHOLE)
        assert await _status(reader) == 202


async def test_path_on_which_no_event_came_is_not_refused() -> None:
    async with _full(_answer) as (_, (reader, writer)):
        writer.write(WHOLE.replace(b"thing.made", b"thing.lost"))
        assert await _status(reader) == 202


async def test_no_refusal_overtakes_the_answer_before_it() -> None:
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        has_begun.set()
        await may_end.wait()
        await _answer(scope, receive, send)

    async with _full(slow) as (_, (reader, writer)):
        writer.write(GET)
        await has_begun.wait()
        writer.write(WHOLE)
        reading = asyncio.create_task(_status(reader))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not reading.done()
        may_end.set()
        assert await reading == 202


async def test_head_that_has_begun_may_look_like_a_request() -> None:
    async with _full(_answer) as (protocol, (reader, writer)):
        writer.write(HEAD.replace(b"thing.made", b"thing.lost") + b"X: ")
        await until(lambda: protocol._has_begun, "the head has begun")
        writer.write(WHOLE)
        assert await _status(reader) == 202


async def test_body_may_look_like_a_request() -> None:
    async with _full(_answer) as (protocol, (reader, writer)):
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(WHOLE))
        assert await _status(reader) == 202, "which the application says before it has read the body"
        writer.write(WHOLE)
        await until(lambda: protocol._is_in_head, "the body has ended")
        writer.write(GET)
        assert await _status(reader) == 202
