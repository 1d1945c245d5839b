"""What an owner emitted and had not published is published by its stop, or by the next owner."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from headrace import Emit, Event, Headrace
from headrace.log.memory import MemoryLog, MemoryReader
from headrace.log.ports import NewRecord, Position, TopicPartition
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.obstacles import die
from tests.support.platform import (
    fetch,
    noted,
    publish,
    running,
    sample,
    settings_for,
    until_settled,
    value,
)
from tests.support.waiting import until


class Barrier(MemoryLog):
    """A log that keeps emits waiting while it is closed, or until a reader is closed: that is, until a stop."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        self.asked = 0

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append; emits once the barrier is open."""
        if any(record.topic.endswith("-echoes") for record in records):
            self.asked += 1
            await self.opened.wait()
        return await super().publish(records)

    def echoes(self, topic: str) -> list[bytes | None]:
        """What the log has of the emits."""
        return [record.key for record in self._topics[f"{topic}-echoes"][0]]


class UntilClosed(Barrier):
    """A barrier that opens when the reader of the pages is closed."""

    async def reader(self, positions: Mapping[TopicPartition, int]) -> MemoryReader:
        """Return a reader that opens the barrier as it is closed."""
        made = await super().reader(positions)
        close = made.close

        async def close_and_open() -> None:
            await close()
            self.opened.set()

        made.close = close_and_open  # type: ignore[method-assign]
        return made


async def test_stop_publishes_what_was_emitted_and_marks_it(database_url: str, topic_name: str) -> None:
    """So the next owner has nothing to publish again."""
    log = UntilClosed()
    async with running(_echoing(settings_for(database_url, partitions=1), topic_name), log) as runtime:
        await publish(runtime, *(noted(topic_name, page, 1) for page in "abc"))
        await until(lambda: log.asked, "the emits wait for the log")
        assert await value(runtime, "select emitted_through from headrace.claim") == 0
    assert log.echoes(topic_name) == [b"a", b"b", b"c"]
    async with running(_echoing(settings_for(database_url, partitions=1), topic_name), log) as runtime:
        assert await value(runtime, "select emitted_through = sequence and sequence > 0 from headrace.claim")
        assert sample(runtime, "emits_republished_total") == 0


async def test_emits_are_not_marked_by_later_batches_while_they_wait(database_url: str, topic_name: str) -> None:
    """Their owner dies, and the next one publishes them."""
    log, settings = Barrier(), settings_for(database_url, partitions=1)
    async with running(_echoing(settings, topic_name), log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: log.asked, "the emit waits for the log")
        for number in (0, 0, 2):  # a number of 0 is noted without an echo
            done = await value(runtime, "select sequence from headrace.claim")
            await publish(runtime, noted(topic_name, "b", number))
            await until(partial(_is_past, runtime, done), "a later batch is committed")
        assert await value(runtime, "select emitted_through from headrace.claim") == 0
        await die(runtime)
    assert log.echoes(topic_name) == []
    log.opened.set()
    async with running(_echoing(settings, topic_name), log) as runtime:
        assert log.echoes(topic_name) == [b"a", b"b"]
        assert sample(runtime, "emits_republished_total") == 2


async def test_emits_are_published_before_the_first_batch(database_url: str, topic_name: str) -> None:
    """What the new owner itself emits comes behind what the old one left."""
    log, settings = Barrier(), settings_for(database_url, partitions=1)
    await _leave_an_emit(log, settings, topic_name, "old")
    await log.publish([noted(topic_name, "new", 1)])
    async with running(_echoing(settings, topic_name), log, is_waiting=True) as runtime:
        await until(lambda: log.asked == 2, "the new owner publishes what the old one left")
        assert await value(runtime, "select next_offset from headrace.claim") == 1
        log.opened.set()
        await until_settled(runtime, "notes")
    assert log.echoes(topic_name) == [b"old", b"new"]


async def test_owner_that_stops_while_it_claims_marks_no_left_emits(database_url: str, topic_name: str) -> None:
    """A rebalance ends it before the log has taken what the old one left: the owner after it publishes that."""
    log, settings = Barrier(), settings_for(database_url, partitions=1)
    await _leave_an_emit(log, settings, topic_name, "a")
    async with running(_echoing(settings, topic_name), log, is_waiting=True) as runtime:
        await until(lambda: log.asked == 2, "the new owner publishes what the old one left")
    assert log.echoes(topic_name) == []
    log.opened.set()
    async with running(_echoing(settings, topic_name), log) as runtime:
        assert log.echoes(topic_name) == [b"a"]
        assert sample(runtime, "emits_republished_total") == 1


async def test_emits_of_a_batch_that_is_rolled_back_never_leave(database_url: str, topic_name: str) -> None:
    """The handler is done, and Postgres refuses what it did."""
    log = Barrier()
    log.opened.set()
    settings = settings_for(database_url, partitions=1, retry_attempts=2)
    async with running(_echoing(settings, topic_name), log) as runtime:
        await fetch(runtime, "alter table headrace.ledger add check (applied = 0)")
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: value(runtime, "select count(*) from headrace.dead_letter"), "the event is given up")
        await until_settled(runtime, "notes")
        assert log.asked == 0


async def _leave_an_emit(log: Barrier, settings: Settings, topic: str, page: str) -> None:
    """Let an owner die whose emit the log has not taken yet."""
    async with running(_echoing(settings, topic), log) as runtime:
        await publish(runtime, noted(topic, page, 1))
        await until(lambda: log.asked, "the emit waits for the log")
        await die(runtime)


def _echoing(settings: Settings, topic: str) -> Headrace:
    """A service that echoes what is noted, except for the number 0; nobody reads the echoes."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    class Echoed(Event, type="echoed", topic=f"{topic}-echoes", key="page"):
        page: str

    platform.declare(Echoed)

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, emit: Emit) -> None:
        if event.number:
            emit(Echoed(page=event.page))

    return platform


async def _is_past(runtime: Runtime, sequence: int) -> bool:
    return bool(await value(runtime, "select sequence > $1 from headrace.claim", sequence))
