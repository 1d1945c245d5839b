"""When the log is away, slow or full: a 503, 429 or 413 that says what is safe to do."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.errors import HeadraceError, LogMismatchError, RecordTooLargeError, TransportError
from headrace.ingest.limiter import Limiter, Place
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, Position
from tests.integration.http.conftest import Opener, Platform
from tests.support.waiting import until
from tests.support.web import http_client

DATA = {"customer": "ada", "amount": 5}
EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "wallet.credited", "data": DATA}
STRUCTURED = {"content-type": "application/cloudevents+json"}


class FailingLog(MemoryLog):
    """A log whose publish fails."""

    def __init__(self, error: HeadraceError) -> None:
        super().__init__()
        self._error = error

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        raise self._error


class HeldLog(MemoryLog):
    """A log that acknowledges when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.released = asyncio.Event()

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        self.waiting += 1
        await self.released.wait()
        return await super().publish(records)


async def post(shop: Platform) -> httpx.Response:
    """Publish one event."""
    async with shop.client() as client:
        return await client.post("/events", headers=STRUCTURED, json=EVENT)


def assert_unavailable(answer: httpx.Response) -> None:
    """A 503 that may be sent again."""
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"] == "/problems/unavailable"
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_log_that_is_away_is_503(platform: Opener) -> None:
    """The answer says that sending again with the same ids is safe."""
    shop = await platform(log=FailingLog(TransportError("broker:9092 is away")))
    answer = await post(shop)
    assert_unavailable(answer)
    assert "publishing the same event ids again is safe" in answer.json()["detail"]
    assert shop.sample("ingest_rejected_total", reason="unavailable") == 1
    assert shop.sample("ingest_duration_seconds_count", mode="structured", outcome="failed") == 1
    assert shop.sample("log_produce_in_flight", topic="wallets") == 0


async def test_plain_data_are_told_the_id_to_send_again(platform: Opener) -> None:
    shop = await platform(log=FailingLog(TransportError("away")))
    async with shop.client() as client:
        answer = await client.post("/events/wallet.credited", json=DATA)
        assert_unavailable(answer)
        event_id = answer.json()["detail"].rpartition("Idempotency-Key: ")[2].rstrip(".")
        shop.running.log = shop.memory = MemoryLog()
        await shop.running.log.create("wallets", 3)
        await client.post("/events/wallet.credited", json=DATA, headers={"Idempotency-Key": event_id})
    ((envelope, _, _),) = await shop.records()
    assert envelope.id == event_id


async def test_a_topic_that_is_missing_is_503_and_named(platform: Opener) -> None:
    shop = await platform(log=FailingLog(LogMismatchError("the topic 'wallets' does not exist")))
    answer = await post(shop)
    assert_unavailable(answer)
    assert "the topic 'wallets' does not exist" in answer.json()["detail"]


async def test_a_record_too_large_for_the_log_is_413(platform: Opener) -> None:
    shop = await platform(log=FailingLog(RecordTooLargeError("the record has 2 MB, the broker takes 1 MB")))
    answer = await post(shop)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")


@pytest.mark.parametrize("state", ["not started", "not connected", "draining"])
async def test_a_process_that_cannot_take_events_is_503(platform: Opener, state: str) -> None:
    shop = await platform()
    if state == "not started":
        shop.runtime = None
    elif state == "not connected":
        shop.running.log = None
    else:
        shop.running.is_draining = True
    assert_unavailable(await post(shop))


async def test_an_answer_that_comes_too_late_is_503(platform: Opener) -> None:
    """The publish itself is not cancelled."""
    log = HeldLog()
    shop = await platform(log=log, timeout_seconds=0.05)
    answer = await post(shop)
    assert_unavailable(answer)
    assert "unknown" in answer.json()["detail"]
    log.released.set()
    await until(shop.records, "the publish has ended")
    await until(lambda: shop.sample("log_produce_in_flight", topic="wallets") == 0, "nothing is in flight")


async def test_too_many_requests_in_flight_are_429(platform: Opener) -> None:
    """The requests before the limit are accepted."""
    log = HeldLog()
    shop = await platform(log=log, max_in_flight=2)
    held = [asyncio.create_task(post(shop)) for _ in range(2)]
    await until(lambda: log.waiting == 2, "two requests wait")
    answer = await post(shop)
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/rate-limited")
    assert int(answer.headers["retry-after"]) >= 1
    log.released.set()
    assert [(await task).status_code for task in held] == [202, 202]
    assert (await post(shop)).status_code == 202


async def test_bodies_on_their_way_are_bounded_too(platform: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow body takes memory as a slow log does; it frees its place when it ends."""
    shop = await platform(max_in_flight=2)
    ends, taken, place = asyncio.Event(), list[int](), Limiter.place

    def counted(self: Limiter, most: int, most_bytes: int) -> AbstractContextManager[Place]:
        taken.append(most)
        return place(self, most, most_bytes)

    monkeypatch.setattr(Limiter, "place", counted)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await ends.wait()
        yield json.dumps(EVENT)[1:].encode()

    async with shop.served() as address, http_client(base_url=address, timeout=30) as client:
        held = [asyncio.create_task(client.post("/events", headers=STRUCTURED, content=slowly())) for _ in range(2)]
        await until(lambda: len(taken) == 2, "both have a place")  # to ask by a request would take one from them
        assert (await post(shop)).status_code == 429
        ends.set()
        assert [(await task).status_code for task in held] == [202, 202]
    assert (await post(shop)).status_code == 202


async def test_bytes_in_flight_are_bounded(platform: Opener) -> None:
    """Few large requests take the memory of many small ones; a body that is alone may be larger than the limit."""
    log = HeldLog()
    shop = await platform(log=log, max_in_flight_bytes=1_024)
    large = json.dumps(EVENT).encode() + b" " * 900

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield large

    async with shop.client() as client:
        held = asyncio.create_task(client.post("/events", headers=STRUCTURED, content=large))
        await until(lambda: log.waiting == 1, "the first one waits")
        for content in (large, pieces()):
            answer = await client.post("/events", headers=STRUCTURED, content=content)
            assert (answer.status_code, answer.json()["type"]) == (429, "/problems/rate-limited")
            assert "HEADRACE_INGEST_MAX_IN_FLIGHT_BYTES" in answer.json()["detail"]
            assert int(answer.headers["retry-after"]) >= 1
        assert (await post(shop)).status_code == 429
        log.released.set()
        assert (await held).status_code == 202
        answer = await client.post("/events", headers=STRUCTURED, content=large + b" " * 900)
        assert answer.status_code == 202
    assert shop.sample("ingest_rejected_total", reason="rate_limited") == 3


async def test_a_body_that_does_not_come_is_408(platform: Opener) -> None:
    shop = await platform(body_seconds=0.05)

    head = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cloudevents+json\r\n"
    async with shop.served() as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        writer.write(head + b"Content-Length: 100\r\n\r\n{")
        async with asyncio.timeout(20):
            said = await reader.read()
        writer.close()
    assert said.startswith(b"HTTP/1.1 408 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["type"] == "/problems/request-timeout"
    assert shop.sample("ingest_rejected_total", reason="timeout") == 1


async def test_a_caller_who_leaves_does_not_cancel_the_publish(platform: Opener) -> None:
    log = HeldLog()
    shop = await platform(log=log)
    async with shop.served() as address, http_client(base_url=address) as client:
        request: asyncio.Task[Any] = asyncio.create_task(client.post("/events", headers=STRUCTURED, json=EVENT))
        await until(lambda: log.waiting == 1, "the request waits")
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        log.released.set()
        await until(shop.records, "the event is in the log")


async def test_key_over_its_limit_is_429_before_its_body_is_read(platform: Opener, tmp_path: Path) -> None:
    names = [secrets.token_hex(4) for _ in range(2)]
    limited = {"scopes": ["publish"], "events_per_second": 0.001}
    keys = tmp_path / "keys"
    keys.write_text(json.dumps([{"name": name, "key": name, **limited} for name in names]))
    shop = await platform(keys=keys)
    async with shop.client() as client:
        first, second = ({"X-API-Key": name} for name in names)
        event = {"customer": "ada", "amount": 1}
        assert (await client.post("/events/wallet.credited", json=event, headers=first)).status_code == 202
        refused = await client.post("/events/wallet.credited", json="no such data", headers=first)
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/rate-limited")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.post("/events/wallet.credited", json=event, headers=second)).status_code == 202
    assert len(await shop.records()) == 2
    assert shop.sample("ingest_rejected_total", reason="rate_limited") == 1


async def test_batch_that_was_not_acknowledged_does_not_count(platform: Opener, tmp_path: Path) -> None:
    """It may be sent again as soon as the log is back, by a caller who has a limit as well."""
    keys = tmp_path / "keys"
    keys.write_text(json.dumps([{"key": "till", "scopes": ["publish"], "events_per_second": 0.001}]))
    shop = await platform(log=FailingLog(TransportError("broker:9092 is away")), keys=keys)
    batch = [EVENT | {"id": str(number)} for number in range(50)]
    headers = {"content-type": "application/cloudevents-batch+json", "X-API-Key": "till"}
    async with shop.client() as client:
        for _ in range(2):
            assert_unavailable(await client.post("/events", headers=headers, json=batch))
