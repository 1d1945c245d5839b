"""`headrace run` answers what it cannot answer in time with 429 at once, and accepts the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.service import Service
from tests.support.small_app import write_small_app
from tests.support.web import http_client

FLOOD = 60
BODY = b'{"name":"a"}'
HEAD = b"POST /events/thing.made HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
POST = b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


KEY = b"X-API-Key: secret\r\n"
PREFLIGHT = b"OPTIONS /events/thing.made HTTP/1.1\r\nHost: localhost\r\nOrigin: http://example.org\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def service(tmp_path: Path, topic_name: str) -> AsyncIterator[Service]:
    """A service whose requests may hardly wait; it asks for a key."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps([{"name": "till", "key": "secret", "scopes": ["publish", "read"]}]))
    settings = {
        "HEADRACE_LOG": "memory",
        "HEADRACE_INGEST_MAX_WAIT_SECONDS": "0.002",
        "HEADRACE_API_KEYS_FILE": str(keys),
    }
    started = Service(tmp_path, settings, app=write_small_app(tmp_path, topic_name))
    try:
        await started.start()
        yield started
    finally:
        await started.stop()


async def _ask(connection: Streams, request: bytes = HEAD + KEY + POST) -> tuple[int, str]:
    """Send one event, and return the status and the head of the answer."""
    reader, writer = connection
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].split("\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1]), head


async def test_a_flood_is_refused_at_once_and_more_is_accepted(service: Service) -> None:
    """Most of many requests that come at once are answered 429; their connections serve the next ones."""
    connections = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(FLOOD)]
    assert {(await _ask(each))[0] for each in connections} == {202}
    service.pause()
    try:
        asked = [asyncio.create_task(_ask(each)) for each in connections]
        await asyncio.sleep(0)  # each has written
    finally:
        service.resume()
    answers = await asyncio.gather(*asked)
    refused = [head for status, head in answers if status == 429]
    assert {status for status, _ in answers} == {202, 429}
    assert all("retry-after: 1\r\n" in head and "application/problem+json" in head for head in refused)
    assert {(await _ask(each))[0] for each in connections} == {202}
    for _, writer in connections:
        writer.close()
    assert await _metric(service, 'headrace_ingest_rejected_total{reason="rate_limited"}') == len(refused)


async def test_requests_that_are_refused_shut_out_nobody(service: Service) -> None:
    """What is answered for want of a key, or since nothing takes its method, does not wait for ever."""
    connection = await asyncio.open_connection("127.0.0.1", service.port)
    for request, status in ((HEAD + POST, 401), (PREFLIGHT, 405)):
        assert (await _ask(connection))[0] == 202
        answers = [(await _ask(connection, request))[0] for _ in range(FLOOD)]
        assert answers == [status] * FLOOD
        assert (await _ask(connection))[0] == 202
    connection[1].close()


async def _metric(service: Service, name: str) -> float:
    async with http_client() as client:
        text = (await client.get(f"{service.url}/metrics", headers={"X-API-Key": "secret"})).text
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))
