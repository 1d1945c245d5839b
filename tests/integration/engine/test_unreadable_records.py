"""Whatever goes wrong in reading a record ends as that record's dead letter, and the partition continues behind it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from pydantic import field_validator

from headrace import Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, Record
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.platform import (
    Notes,
    client,
    fetch,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    until_settled,
    value,
)
from tests.support.waiting import until

SURROGATE = '{"page": "caf\\ud83d", "number": 1}'
FAULTS: dict[str, type[Exception]] = {
    "zero": ZeroDivisionError,
    "key": KeyError,
    "recursion": RecursionError,
    "memory": MemoryError,
}


class Oddness:
    """What a validator or decoder raises for the pages that bear its name; nothing when `is_mended`."""

    def __init__(self) -> None:
        self.is_mended = False

    def __call__(self, page: str) -> str:
        if page in FAULTS and not self.is_mended:
            raise FAULTS[page](page)
        return page


def _service(settings: Settings, topic: str, odd: Oddness, kind: str, broken: set[str] | None = None) -> Headrace:
    """Return a notebook whose validator (or the decoder of its topic) is odd; handlers fail for `broken` pages."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

        @field_validator("page")
        @classmethod
        def check(cls, page: str) -> str:
            return page if "decoder" in kind else odd(page)

    if "decoder" in kind:

        class Till(msgspec.Struct):
            page: str
            number: int

        @platform.decoder(topic)
        def decode(record: Record) -> Noted:
            found = Till(**json.loads(record.value or b""))
            return Noted(page=odd(found.page), number=found.number)

    def note(event: Noted, kept: State[Notes]) -> None:
        if broken and event.page in broken:
            raise ValueError("not yet")
        kept.numbers.append(event.number)

    async def note_async(event: Noted, kept: State[Notes]) -> None:
        note(event, kept)

    platform.subscription("notes").on(Noted)(note_async if kind.startswith("async") else note)
    return platform


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["sync", "async", "decoder"])
async def test_reading_that_raises_anything_is_a_dead_letter(
    database_url: str, topic_name: str, kind: str, fault: str
) -> None:
    """Whatever the validator or the decoder raises; the events around it are applied."""
    platform = _service(settings_for(database_url, partitions=1), topic_name, Oddness(), kind)
    log = await _log(topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, *(noted(topic_name, page, 1) for page in ("a", fault, "b")))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1], "b": [1]}
        (letter,) = await fetch(runtime, 'select "offset", reason, error from headrace.dead_letter')
        assert letter["offset"] == 1
        assert letter["reason"] in ("decode", "schema")
        assert await value(runtime, "select next_offset from headrace.claim") == 3


@pytest.mark.parametrize("kind", ["sync", "async", "decoder"])
async def test_key_that_is_half_a_character_is_a_dead_letter(database_url: str, topic_name: str, kind: str) -> None:
    """An emoji that was cut in two: JSON can hold it, UTF-8 cannot."""
    platform = _service(settings_for(database_url, partitions=1), topic_name, Oddness(), kind)
    cut = noted(topic_name, "cut", 1)
    log = await _log(topic_name)
    async with running(platform, log) as runtime:
        await publish(
            runtime,
            noted(topic_name, "a", 1),
            NewRecord(topic_name, b"cut", SURROGATE.encode(), cut.headers),
            noted(topic_name, "b", 1),
        )
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1], "b": [1]}
        (letter,) = await fetch(runtime, 'select "offset", value from headrace.dead_letter')
        assert (letter["offset"], letter["value"]) == (1, SURROGATE.encode())


@pytest.mark.parametrize("fault", FAULTS)
async def test_parked_event_that_can_no_longer_be_read_is_given_up(
    database_url: str, topic_name: str, fault: str
) -> None:
    """A new version of the class does not take it; the events behind it in the lane are applied."""
    odd, broken = Oddness(), {fault, "other"}
    odd.is_mended = True
    platform = _service(settings_for(database_url, partitions=1, retry_attempts=20), topic_name, odd, "sync", broken)
    log = await _log(topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, fault, 1), noted(topic_name, "other", 1))
        await until(lambda: _parked(runtime, 2), "both are parked")
        odd.is_mended = False
        broken.clear()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"other": [1]}
        (letter,) = await fetch(runtime, 'select "offset" from headrace.dead_letter')
        assert letter["offset"] == 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_replay_that_cannot_be_read_stays_a_dead_letter(database_url: str, topic_name: str, fault: str) -> None:
    """Those beside it are replayed, and the partition continues."""
    odd, broken = Oddness(), {fault, "a", "b"}
    odd.is_mended = True
    settings = settings_for(database_url, partitions=1, retry_attempts=1)
    platform = _service(settings, topic_name, odd, "sync", broken)
    log = await _log(topic_name)
    async with running(platform, log) as runtime, client(platform) as http:
        await publish(runtime, *(noted(topic_name, page, 1) for page in ("a", fault, "b")))
        await until_settled(runtime, "notes")
        odd.is_mended = False
        broken.clear()
        await http.post("/subscriptions/notes/pause")
        await until(lambda: sample(runtime, "subscription_paused") == 1, "paused")
        for letter in await fetch(runtime, "select id from headrace.dead_letter"):
            assert (await http.post(f"/dead-letters/{letter['id']}/replay")).status_code == 200
        await http.post("/subscriptions/notes/resume")
        await until(lambda: _has(runtime, {"a": [1], "b": [1]}), "the others are applied")
        await until(lambda: value(runtime, OPEN), "it is open again")
        await publish(runtime, noted(topic_name, "c", 1))
        await until_settled(runtime, "notes")
        assert (await pages(runtime))["c"] == [1]


async def test_replay_that_postgres_refuses_stays_a_dead_letter(database_url: str, topic_name: str) -> None:
    """The replays beside it are applied, and the partition continues."""
    broken = {"a", "refused", "b"}
    settings = settings_for(database_url, partitions=1, retry_attempts=1)
    platform = _service(settings, topic_name, Oddness(), "sync", broken)
    log = await _log(topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, *(noted(topic_name, page, 1, id=page) for page in ("a", "refused", "b")))
        await until_settled(runtime, "notes")
        broken.clear()
        await value(runtime, "alter table headrace.parked add constraint never check (event_id <> 'refused')")
        await value(runtime, "update headrace.dead_letter set decision = 'replay', decided_at = now()")
        await until(lambda: _has(runtime, {"a": [1], "b": [1]}), "the others are applied")
        await until(lambda: value(runtime, OPEN), "it is open again")
        assert "never" in await value(runtime, "select error from headrace.dead_letter where decision is null")
        await publish(runtime, noted(topic_name, "c", 1))
        await until_settled(runtime, "notes")
        assert (await pages(runtime))["c"] == [1]


async def _log(topic: str) -> MemoryLog:
    log = MemoryLog()
    await log.create(topic, 1)  # the platform creates no topic that has a decoder
    return log


OPEN = "select count(*) = 1 from headrace.dead_letter where decision is null and settled_at is null"


async def _parked(runtime: Runtime, count: int) -> bool:
    return bool(await value(runtime, "select count(*) = $1 from headrace.parked", count))


async def _has(runtime: Runtime, expected: dict[str, Any]) -> bool:
    return await pages(runtime) == expected
