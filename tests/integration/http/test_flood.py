"""`headrace run` answers what it cannot begin in time with 429 at once, and accepts the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.service import Service
from tests.support.small_app import write_small_app
from tests.support.web import http_client

FLOOD = 60
BODY = b'{"name":"a"}'
HEAD = b"POST /events/thing.made HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
POST = b"%bContent-Length: %d\r\n\r\n%b" % (HEAD, len(BODY), BODY)


@pytest.fixture
async def service(tmp_path: Path, topic_name: str) -> AsyncIterator[Service]:
    """A service whose requests may hardly wait."""
    settings = {"HEADRACE_LOG": "memory", "HEADRACE_INGEST_MAX_WAIT_SECONDS": "0.002"}
    started = Service(tmp_path, settings, app=write_small_app(tmp_path, topic_name))
    try:
        await started.start()
        yield started
    finally:
        await started.stop()


async def _ask(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> tuple[int, str]:
    """Send one event, and return the status and the head of the answer."""
    reader, writer = connection
    writer.write(POST)
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


async def _metric(service: Service, name: str) -> float:
    async with http_client() as client:
        text = (await client.get(f"{service.url}/metrics")).text
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))
