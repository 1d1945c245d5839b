"""The live tail: what comes into the log from now on, to readers on real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from headrace.cloudevents import encode_record
from headrace.envelope import Envelope
from headrace.log.memory import MemoryLog, MemoryReader
from headrace.log.ports import Bounds, NewRecord, Position, TopicInfo, TopicPartition
from headrace.queries import progress, stream
from tests.integration.http.conftest import Opener
from tests.support.waiting import until
from tests.support.web import http_client


def credited(event_id: str, key: str = "ada", type: str = "wallet.credited", topic: str = "wallets") -> NewRecord:
    """An event as a record."""
    data = b'{\n "customer": "ada",\r\n "amount": 5}'
    return encode_record(Envelope(id=event_id, source="/s", type=type), data, topic=topic, key=key)


class Tail:
    """The messages of one open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, str]:
        """The next message, its fields by name; comments are left out."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(20):
            async for line in self._lines:
                if not line and fields:
                    return fields
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
        raise AssertionError("the stream has ended")

    async def rest(self) -> list[str]:
        """Every further line, until the stream ends."""
        async with asyncio.timeout(20):
            return [line async for line in self._lines]


@asynccontextmanager
async def tail(client: httpx.AsyncClient, query: str = "", last: str | None = None) -> AsyncIterator[Tail]:
    """Follow, after the event that was seen last; on entry the stream has begun."""
    headers = {"Last-Event-ID": last} if last is not None else {}
    async with client.stream("GET", f"/events/stream{query}", headers=headers, timeout=30) as response:
        assert response.status_code == 200
        yield Tail(response)


async def test_what_comes_from_now_on_is_sent_with_its_position(platform: Opener) -> None:
    log = MemoryLog()
    shop = await platform(log=log)
    await log.publish([credited("before")])
    async with shop.served() as address, http_client(base_url=address) as client, tail(client) as opened:
        assert opened.response.headers["content-type"] == "text/event-stream"
        (position,) = await log.publish([credited("after")])
        message = await opened.next()
    assert message["id"].partition(";")[0] == f"wallets/{position.partition}/{position.offset}"
    event = json.loads(message["data"])
    assert (event["id"], event["type"], event["data"]) == ("after", "wallet.credited", {"customer": "ada", "amount": 5})


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("?topic=alerts", ["3"]),
        ("?type=wallet.overdrawn", ["3"]),
        ("?key=bob", ["2"]),
        ("?key=bob&key=eve", ["2", "3"]),
        ("?topic=wallets&type=wallet.credited&key=ada", ["1"]),
    ],
)
async def test_a_stream_shows_only_what_was_asked_for(platform: Opener, query: str, ids: list[str]) -> None:
    log = MemoryLog()
    shop = await platform(log=log)
    async with shop.served() as address, http_client(base_url=address) as client, tail(client, query) as opened:
        overdrawn = credited("3", "eve", "wallet.overdrawn", "alerts")
        await log.publish([credited("1"), credited("2", "bob"), overdrawn])
        found = [json.loads((await opened.next())["data"])["id"] for _ in ids]
    assert sorted(found) == ids


async def test_a_reader_that_comes_back_misses_nothing(platform: Opener) -> None:
    """It leaves after any event, of whichever partition, while others are published, and sees nothing twice."""
    log = MemoryLog()
    shop = await platform(log=log)
    expected = {str(number) for number in range(20)}
    seen: list[str] = []
    last = None
    async with shop.served() as address, http_client(base_url=address) as client:
        async with tail(client) as opened:
            await log.publish([credited(str(number), f"c{number}") for number in range(10)])
            message = await opened.next()
            seen, last = [json.loads(message["data"])["id"]], message["id"]
        await log.publish([credited(str(number), f"c{number}") for number in range(10, 20)])
        while len(seen) < 20:
            async with tail(client, last=last) as opened:
                for _ in range(min(7, 20 - len(seen))):
                    message = await opened.next()
                    seen.append(json.loads(message["data"])["id"])
                    last = message["id"]
    assert sorted(seen) == sorted(expected)


async def test_a_reader_is_told_what_the_log_no_longer_has(platform: Opener) -> None:
    class ShortLog(MemoryLog):
        async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
            found = await super().bounds(partitions)
            return {partition: each._replace(begin=5, end=5) for partition, each in found.items()}

    shop = await platform(log=ShortLog())
    async with (
        shop.served() as address,
        http_client(base_url=address) as client,
        tail(client, "?topic=wallets", last="wallets/1/2") as opened,
    ):
        message = await opened.next()
    told = {"topic": "wallets", "partition": 1, "first": 3, "end": 5}
    assert (message["event"], json.loads(message["data"])) == ("gap", told)


async def test_an_id_of_another_place_is_422_and_takes_no_place(platform: Opener) -> None:
    shop = await platform(max_streams=1)
    async with shop.client() as client:
        for _ in range(2):
            answer = await client.get("/events/stream", headers={"Last-Event-ID": "42"})
            assert (answer.status_code, answer.json()["type"]) == (422, "/problems/parameters")


@pytest.mark.parametrize("slow", ["topics", "bounds", "reader"])
async def test_what_a_slow_log_opens_late_is_closed(
    platform: Opener, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """Nobody waits for the reader any more when it comes; until then it counts as an open stream."""
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.05)
    released = asyncio.Event()
    opened: list[MemoryReader] = []
    closed: list[MemoryReader] = []

    class SlowLog(MemoryLog):
        async def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
            await self._wait("topics")
            return await super().topics(names)

        async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
            await self._wait("bounds")
            return await super().bounds(partitions)

        async def reader(self, positions: Mapping[TopicPartition, int]) -> MemoryReader:
            await self._wait("reader")
            reader = await super().reader(positions)
            close = reader.close

            async def close_and_note() -> None:
                closed.append(reader)
                await close()

            monkeypatch.setattr(reader, "close", close_and_note)
            opened.append(reader)
            return reader

        async def _wait(self, call: str) -> None:
            if call == slow:
                await released.wait()

    shop = await platform(log=SlowLog(), max_streams=2)
    async with shop.client() as client:
        for status in (503, 503, 429, 429):
            assert (await client.get("/events/stream")).status_code == status
        released.set()

        async def there_is_room() -> bool:
            return (await client.get("/events/stream", params={"topic": "nowhere"})).status_code == 404

        await until(there_is_room, "the places are free again")
        assert len(opened) == (2 if slow == "reader" else 0) == len(closed)


async def test_a_record_that_is_no_event_is_shown_as_such(platform: Opener) -> None:
    log = MemoryLog()
    shop = await platform(log=log)
    async with shop.served() as address, http_client(base_url=address) as client, tail(client) as opened:
        await log.publish([NewRecord("wallets", None, None, [])])
        message = await opened.next()
    assert message["event"] == "undecodable"
    assert "tombstone" in json.loads(message["data"])["error"]


async def test_streams_end_when_the_process_drains(platform: Opener) -> None:
    shop = await platform()
    async with shop.served() as address, http_client(base_url=address) as client, tail(client) as opened:
        shop.running.is_draining = True
        shop.running.draining.set()
        assert "data" not in "".join(await opened.rest())


async def test_silence_is_broken_by_heartbeats(platform: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.0)
    shop = await platform()
    async with shop.served() as address, http_client(base_url=address) as client, tail(client) as opened:
        async with asyncio.timeout(20):
            async for line in opened.response.aiter_lines():
                if line == ": still here":
                    return
    raise AssertionError("no heartbeat")


async def test_open_streams_are_bounded(platform: Opener) -> None:
    """A reader who leaves makes room for the next one."""
    shop = await platform(max_streams=1)
    async with shop.served() as address, http_client(base_url=address) as client:
        async with tail(client):
            refused = await client.get("/events/stream")
            assert (refused.status_code, refused.json()["type"]) == (429, "/problems/rate-limited")
            assert refused.headers["retry-after"]

        async def there_is_room() -> bool:
            async with client.stream("GET", "/events/stream") as response:
                return response.status_code == 200

        await until(there_is_room, "the first stream is closed")


async def test_a_stream_that_cannot_be_opened_takes_no_place(platform: Opener) -> None:
    """An unknown topic is answered with 404 and a log that is away with 503."""
    shop = await platform(max_streams=1)
    async with shop.client() as client:
        for _ in range(3):
            assert (await client.get("/events/stream", params={"topic": "nowhere"})).status_code == 404
        shop.running.log = None
        for _ in range(3):
            assert (await client.get("/events/stream")).status_code == 503


async def test_published_positions_are_told_apart(platform: Opener) -> None:
    """Ids are unique over topics, so that a reader can drop what it has seen."""
    log = MemoryLog()
    shop = await platform(log=log)
    async with shop.served() as address, http_client(base_url=address) as client, tail(client) as opened:
        positions: list[Position] = await log.publish([credited(str(number), f"c{number}") for number in range(20)])
        found = {(await opened.next())["id"].partition(";")[0] for _ in positions}
    expected: set[Any] = {f"{position.topic}/{position.partition}/{position.offset}" for position in positions}
    assert found == expected
