"""`headrace run` bounds what a client may send before anything looks at it: raw sockets against a real process."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.service import Service
from tests.support.small_app import write_small_app
from tests.support.web import http_client

LIMITS = {
    "HEADRACE_LOG": "memory",
    "HEADRACE_INGEST_HEADER_SECONDS": "1",
    "HEADRACE_INGEST_BODY_SECONDS": "1",
    "HEADRACE_INGEST_MAX_HEADER_BYTES": "20000",
    "HEADRACE_INGEST_MAX_CONNECTIONS": "8",
}
POST = b"POST /events/thing.made HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
TOO_MUCH = 64_000_000


@pytest.fixture
async def service(tmp_path: Path, topic_name: str) -> AsyncIterator[Service]:
    """A service with tight limits."""
    started = Service(tmp_path, LIMITS, app=write_small_app(tmp_path, topic_name))
    try:
        await started.start()
        yield started
    finally:
        await started.stop()


class Connection:
    """A raw connection, whose answer is read all the while."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._answer = asyncio.create_task(_read(reader))

    @classmethod
    async def to(cls, service: Service) -> Connection:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", service.port))

    async def send(self, data: bytes) -> bool:
        """Send, and return True if the server has not ended the connection."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            return False
        return not self._answer.done()

    async def flood(self, part: bytes) -> int:
        """Send the part again and again until the server ends the connection; return the bytes that it took."""
        sent = 0
        while sent < TOO_MUCH and await self.send(part):
            sent += len(part)
        return sent

    async def drip(self, part: bytes) -> bytes:
        """Send a little now and then until the server ends the connection; return what it said."""
        async with asyncio.timeout(30):
            while await self.send(part):
                await asyncio.wait((self._answer,), timeout=0.05)
        return await self.answer()

    async def answer(self) -> bytes:
        """Everything that the server says until it ends the connection."""
        async with asyncio.timeout(30):
            said = await self._answer
        self._writer.close()
        return said


async def _read(reader: asyncio.StreamReader) -> bytes:
    said = b""
    try:
        while part := await reader.read(65_536):
            said += part
    except ConnectionError:
        pass
    return said


async def test_limits_hold_on_raw_sockets_and_the_service_goes_on(service: Service) -> None:
    """One process for all of it, since a start costs seconds; what each client gets is in its own helper."""
    await _headers_are_bounded(service)
    await _slow_clients_are_answered_and_closed(service)
    await _connections_are_bounded(service)
    async with http_client() as client:
        answer = await client.post(f"{service.url}/events/thing.made", json={"name": "one"})
    assert answer.status_code == 202, answer.text
    assert "Traceback" not in service.output


async def test_a_reader_that_takes_nothing_holds_up_no_stop(service: Service) -> None:
    small = [socket.socket() for _ in range(2)]
    for each in small:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        await asyncio.to_thread(each.connect, ("127.0.0.1", service.port))
        await asyncio.to_thread(each.sendall, b"GET /events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with (
        http_client(base_url=service.url, timeout=30) as client,
        client.stream("GET", "/events/stream") as stream,
    ):
        lines = stream.aiter_lines()
        assert await anext(lines) == ": following"
        for number in range(60):
            answer = await client.post("/events/thing.made", json={"name": f"{number}", "note": "x" * 100_000})
            assert answer.status_code == 202, answer.text
        async with asyncio.timeout(30):
            while '"name":"59"' not in await anext(lines):
                pass
    assert await service.leave() == 0
    for each in small:
        each.close()
    assert "timeout graceful shutdown exceeded" not in service.output
    assert "Traceback" not in service.output


async def _headers_are_bounded(service: Service) -> None:
    one = await Connection.to(service)
    await one.send(b"GET / HTTP/1.1\r\nX-Large: ")
    assert await one.flood(b"x" * 100_000) < TOO_MUCH
    many = await Connection.to(service)
    await many.send(b"GET / HTTP/1.1\r\n")
    assert await many.flood(b"X-Small: y\r\n" * 10_000) < TOO_MUCH
    small = await Connection.to(service)
    await small.send(b"GET / HTTP/1.1\r\nX-Large: " + b"x" * 30_000)
    said = await small.answer()
    assert said.startswith(b"HTTP/1.1 431 "), said
    assert json.loads(said.partition(b"\r\n\r\n")[2])["type"] == "/problems/headers-too-large"
    trailer = await Connection.to(service)
    await trailer.send(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Large: ")
    assert await trailer.flood(b"x" * 100_000) < TOO_MUCH


async def _slow_clients_are_answered_and_closed(service: Service) -> None:
    head = await Connection.to(service)
    await head.send(b"GET / HTTP/1.1\r\n")
    assert (await head.drip(b"X: y\r\n")).startswith(b"HTTP/1.1 408 ")
    again = await Connection.to(service)
    await again.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\n")
    assert b"HTTP/1.1 408 " in await again.drip(b"X: y\r\n")
    silent = await Connection.to(service)
    assert await silent.answer() == b""
    body = await Connection.to(service)
    await body.send(POST + b"Content-Length: 1000\r\n\r\n{")
    said = await body.answer()
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"HEADRACE_INGEST_BODY_SECONDS" in said
    refused = await Connection.to(service)
    await refused.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
    assert (await refused.answer()).count(b"HTTP/1.1 ") == 1


async def _connections_are_bounded(service: Service) -> None:
    held = [await Connection.to(service) for _ in range(8)]
    for connection in held:
        await connection.send(b"G")
    beyond = await Connection.to(service)
    assert (await beyond.answer()).startswith(b"HTTP/1.1 503 ")
    for connection in held:
        await connection.answer()
