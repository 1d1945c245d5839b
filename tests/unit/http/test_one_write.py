"""An answer whose length is known leaves in one piece; nothing else waits."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.connection import connected

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
START = {"type": "http.response.start", "status": 202}
LENGTH = [(b"content-length", b"4")]


class Recording:
    """A transport that notes what is written."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self._transport.write(data)


async def _answer(app: Any, request: bytes = HEAD + b"\r\n{}") -> tuple[list[bytes], bytes]:
    """Return what was written for one request, and what the client got until the connection was closed."""
    async with connected(app) as (protocol, (reader, writer)):
        protocol.transport = recording = Recording(protocol.transport)  # type: ignore[assignment]
        writer.write(request)
        async with asyncio.timeout(10):
            return recording.written, await reader.read()


async def test_head_and_body_are_written_at_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START | {"headers": LENGTH})
        await send({"type": "http.response.body", "body": b"done"})

    written, got = await _answer(app)
    assert written == [got]
    assert got.endswith(b"content-length: 4\r\n\r\ndone")


async def test_body_in_parts_begins_with_the_head() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START | {"headers": LENGTH})
        await send({"type": "http.response.body", "body": b"do", "more_body": True})
        await send({"type": "http.response.body", "body": b"ne"})

    written, got = await _answer(app)
    assert b"".join(written) == got
    assert [part[-2:] for part in written] == [b"do", b"ne"]


async def test_head_of_a_stream_does_not_wait() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START | {"headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    written, got = await _answer(app)
    assert b"".join(written) == got
    assert written[0].endswith(b"transfer-encoding: chunked\r\n\r\n")


async def test_head_without_a_body_is_sent_all_the_same() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START | {"headers": LENGTH})

    _, got = await _answer(app)
    assert got.endswith(b"content-length: 4\r\n\r\n")


async def test_client_is_asked_for_its_body_at_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START | {"headers": LENGTH})
        await send({"type": "http.response.body", "body": b"done"})

    async with connected(app) as (_, (reader, writer)), asyncio.timeout(10):
        writer.write(HEAD + b"Expect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.read()).endswith(b"content-length: 4\r\n\r\ndone")
