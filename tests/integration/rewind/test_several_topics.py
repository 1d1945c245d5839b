"""A dry run of events of several topics runs them in the order in which the log took them in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from headrace import Event, Headrace, State
from headrace.log.ports import NewRecord, Record, StoredRecord, TopicPartition
from headrace.rebuild.reading import LogReading
from headrace.rewind.by_time import ByTime
from headrace.rewind.difference import Changed, Emits
from headrace.rewind.plan import Target
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.integration.rewind.support import BEGINNING, rehearsed
from tests.support.kafka import KafkaServer
from tests.support.platform import publish, record, running, settings_for, until_settled
from tests.support.waiting import until


class Account(BaseModel):
    entries: list[str] = []


def bank(settings: Settings, prefix: str, mark: str = "") -> Headrace:
    """Return a service whose state tells in which order events of two topics came; `mark` is added to each."""
    platform = Headrace("bank", settings)

    class Opened(Event, type="opened", topic=f"{prefix}-opened", key="name"):
        name: str
        number: int

    class Paid(Event, type="paid", topic=f"{prefix}-paid", key="name"):
        name: str
        number: int

    accounts = platform.subscription("accounts")

    @accounts.on(Opened)
    def open(event: Opened, kept: State[Account]) -> None:
        kept.entries.append(f"opened {event.number}{mark}")

    @accounts.on(Paid)
    def pay(event: Paid, kept: State[Account]) -> None:
        kept.entries.append(f"paid {event.number}{mark}")

    return platform


async def happen(runtime: Runtime, prefix: str, *events: tuple[str, str, int]) -> None:
    """Publish one event after the other, each in a millisecond of its own, when the one before is applied."""
    for type_, name, number in events:
        await publish(runtime, happened(prefix, type_, name, number))
        await until_settled(runtime, "accounts")
        await later()


def happened(prefix: str, type_: str, name: str, number: int) -> NewRecord:
    return record(f"{prefix}-{type_}", type_, {"name": name, "number": number}, key=name)


async def later() -> datetime:
    """Return a time that is before everything that happens from now on, and behind all that has happened."""
    now = datetime.now(UTC).timestamp()
    since = datetime.fromtimestamp(int(now * 1_000 + 2) / 1_000, UTC)
    await until(lambda: datetime.now(UTC) > since, "the clock has moved on")
    return since


@pytest.mark.parametrize("log", ["embedded", "kafka"])
async def test_dry_run_takes_the_order_between_topics_from_the_log(
    database_url: str, kafka: KafkaServer, topic_name: str, log: str
) -> None:
    """Each topic has what the other one follows; since a time, a key is run with what both topics have of it."""
    settings = settings_for(database_url, kafka.url if log == "kafka" else log, partitions=2)
    async with running(bank(settings, topic_name)) as runtime:
        mixed = [(type_, name, number) for number in range(3) for name in "ab" for type_ in ("paid", "opened")]
        await happen(runtime, topic_name, *mixed)
        since = await later()
        await happen(runtime, topic_name, ("paid", "a", 3))

        found = await rehearsed(runtime, database_url, bank(settings, topic_name), BEGINNING, "accounts")
        assert found.is_empty, found.changes
        assert (found.events, found.keys, found.topics) == (13, 2, 2)

        mended = bank(settings, topic_name, "!")
        found = await rehearsed(runtime, database_url, mended, Target(at=since), "accounts")
        entries = [f"{type_} {number}" for number in range(3) for type_ in ("paid", "opened")] + ["paid 3"]
        marked = [f"{entry}!" for entry in entries]
        assert found.changes == [Changed("account", "a", {"entries": entries}, {"entries": marked})]
        assert (found.events, found.keys, found.offsets, found.emits) == (7, 1, 1, Emits())


A, B, OTHER = TopicPartition("a", 0), TopicPartition("b", 0), TopicPartition("a", 1)


class Chunks(LogReading):
    """Gives out records as they were fetched: some of one partition at a time."""

    def __init__(self, *chunks: tuple[TopicPartition, list[int]]) -> None:
        self._chunks = list(chunks)
        self.positions = dict.fromkeys((A, B, OTHER), 0)

    async def take(self, targets: object) -> dict[TopicPartition, list[Record]]:
        place, times = self._chunks.pop(0)
        begin = self.positions[place]
        self.positions[place] += len(times)
        return {place: [StoredRecord(*place, begin + n, time, b"k", b"", ()) for n, time in enumerate(times)]}


async def order(reading: Chunks, targets: dict[TopicPartition, int]) -> list[tuple[str, int, int]]:
    merged, found = ByTime(reading), []
    while runs := await merged.take(targets):
        found += [(*place, record.timestamp) for place, records in runs for record in records]
    return found


async def test_nothing_runs_before_all_topics_have_told_what_is_next() -> None:
    """`a` waits for `b`, which is fetched later; where one topic has ended, the other goes on alone."""
    reading = Chunks((A, [1, 4, 9]), (B, [2]), (B, [5]))
    assert await order(reading, {A: 3, B: 2}) == [("a", 0, 1), ("b", 0, 2), ("a", 0, 4), ("b", 0, 5), ("a", 0, 9)]


async def test_partition_keeps_its_order_whatever_its_times_are() -> None:
    reading = Chunks((A, [7, 3, 8]), (B, [5, 6]))
    assert await order(reading, {A: 3, B: 2}) == [("b", 0, 5), ("b", 0, 6), ("a", 0, 7), ("a", 0, 3), ("a", 0, 8)]


async def test_partitions_of_other_numbers_do_not_wait() -> None:
    reading = Chunks((OTHER, [1]), (A, [3]), (B, [2]))
    assert await order(reading, {A: 1, B: 1, OTHER: 1}) == [("a", 1, 1), ("b", 0, 2), ("a", 0, 3)]
