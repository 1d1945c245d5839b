"""Partitions that are added to a live topic: refused, then accepted without losing, doubling or overtaking an event."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from headrace import Event, Headrace, State
from headrace.engine.accept import accept_topic
from headrace.errors import ConfigurationError
from headrace.handlers.subscription import Start
from headrace.ledger.inheritance import inherit_ids
from headrace.ledger.rows import Kind, Row, insert_row, pack_marks
from headrace.ledger.window import read_window, window_of
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord, TopicPartition
from headrace.runtime import Runtime
from tests.support.auditing import assert_promises_hold
from tests.support.kafka import KafkaServer
from tests.support.obstacles import Gate
from tests.support.platform import (
    Notes,
    has_pages,
    notebook,
    noted,
    pages,
    publish,
    record,
    running,
    sample,
    settings_for,
    until_settled,
    value,
    watched,
)
from tests.support.producing import produce
from tests.support.waiting import until

PAGES = [f"page-{number}" for number in range(20)]
STAYING = [page for page in PAGES if partition_for(page.encode(), 4) < 2]
"""Pages that live on an old partition when there are four instead of two."""


class GrowingLog(MemoryLog):
    """A memory log whose topics can be given more partitions."""

    def grow(self, topic: str, partitions: int) -> None:
        """Add partitions, as an operator does in Kafka."""
        self._topics[topic] += [[] for _ in range(partitions - len(self._topics[topic]))]


def events(topic: str, *numbers: int) -> list[NewRecord]:
    """Return the numbered events of every page; the same ones whenever they are asked for."""
    return [noted(topic, page, number, id=f"{page}-{number}") for number in numbers for page in PAGES]


@pytest.mark.parametrize("start", ["earliest", "latest"])
async def test_added_partitions_lose_and_double_nothing(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str, start: Start
) -> None:
    """They are refused, the old ones flow on, retries of producers are recognised once the topic is accepted.

    Also if the subscription starts at the latest event: what came to a new partition came after the subscription.
    """
    await kafka.create_topic(topic_name, 2)
    platform = notebook(
        settings_for(database_url, kafka.url, partitions=2), topic_name, start=start, service=service_name
    )
    async with watched(platform) as runtime:
        await produce(kafka.bootstrap, events(topic_name, 1, 2, 3))
        await until_settled(runtime, "notes")

        await _grow(runtime, kafka, topic_name, 4)
        refused = ["partition_refused:notes/2", "partition_refused:notes/3"]
        await until(lambda: runtime.health.readiness() == (False, refused), "readiness names the new partitions")
        detail = runtime.health.ready_report().body.decode()
        assert (
            "has 4 partitions and had 2 when it was last accepted, so keys have moved; run `headrace topics " in detail
        )
        await produce(kafka.bootstrap, events(topic_name, 2, 3, 4, 3, 4))
        await until(lambda: has_pages(runtime, {page: [1, 2, 3, 4] for page in STAYING}), "the old partitions flow on")
        assert await pages(runtime) == {page: [1, 2, 3, 4] if page in STAYING else [1, 2, 3] for page in PAGES}

        lines = await _accept(runtime, topic_name)
        assert [line.split(" is new")[0] for line in lines] == [
            f"{service_name}.notes: {topic_name}/{n}" for n in (2, 3)
        ]
        await until(lambda: runtime.health.readiness() == (True, []), "the new partitions are read", 15)
        await produce(kafka.bootstrap, events(topic_name, 5, 1, 4))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {page: [1, 2, 3, 4, 5] for page in PAGES}
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 6 * len(PAGES)
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0
        known = {page for page in PAGES if page not in STAYING}
        assert await value(runtime, "select sum(applied) from headrace.ledger where partition > 1") == 2 * len(known)
    await assert_promises_hold(database_url)


async def test_key_that_comes_back_is_not_remembered_as_it_left(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str
) -> None:
    """A page moves from partition 0 to 2 and back: a handler there sees what was applied to it meanwhile."""
    page = next(page for page in PAGES if [partition_for(page.encode(), count) for count in (2, 3, 4)] == [0, 2, 0])
    await kafka.create_topic(topic_name, 2)
    platform = notebook(settings_for(database_url, kafka.url, partitions=2), topic_name, service=service_name)
    looked = {"page": page}
    seen: list[list[int]] = []
    _look_at(platform, topic_name, seen)
    async with watched(platform) as runtime:
        await produce(kafka.bootstrap, [noted(topic_name, page, 1)])
        await until_settled(runtime, "notes")
        for partitions, event in (3, noted(topic_name, page, 2)), (4, record(topic_name, "looked", looked, key=page)):
            await _grow(runtime, kafka, topic_name, partitions)
            await _accept(runtime, topic_name)
            await until(lambda: runtime.health.readiness() == (True, []), "the new partition is read", 15)
            await produce(kafka.bootstrap, [event])
            await until_settled(runtime, "notes")
        assert seen[-1] == [1, 2]
    await assert_promises_hold(database_url)


async def test_a_start_finds_more_partitions_and_drains_the_old(database_url: str, topic_name: str) -> None:
    """The process starts, since only the added partitions are refused, and order is kept when they are accepted."""
    log, platform = GrowingLog(), notebook(settings_for(database_url, partitions=2), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, *events(topic_name, 1))
        await until_settled(runtime, "notes")
    await log.publish(events(topic_name, 2, 3))
    log.grow(topic_name, 4)
    await log.publish(events(topic_name, 3, 4))
    async with watched(platform, log, is_refused=True) as runtime:
        await until(lambda: _is_drained(runtime), "the old partitions are applied")
        await _accept(runtime, topic_name)
        await until(lambda: runtime.health.readiness() == (True, []), "the new partitions are read", 15)
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {page: [1, 2, 3, 4] for page in PAGES}
    async with running(notebook(settings_for(database_url, partitions=4), topic_name), log) as runtime:
        await publish(runtime, *events(topic_name, 1, 5))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {page: [1, 2, 3, 4, 5] for page in PAGES}


async def test_accepting_waits_for_records_and_lanes_of_old_ones(
    database_url: str, topic_name: str, gate: Gate
) -> None:
    """It refuses as long as an old partition has records or parked events left: its keys would be overtaken."""
    is_failing = True

    def before(event: Any) -> None:
        gate(event)
        if is_failing and event.page == "failing":
            raise ValueError("not yet")

    settings = settings_for(database_url, partitions=1, retry_attempts=10_000)
    log, platform = GrowingLog(), notebook(settings, topic_name, before)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "held", 0))
        await until_settled(runtime, "notes")
    log.grow(topic_name, 2)
    first, second = (next(f"p{n}" for n in range(99) if partition_for(f"p{n}".encode(), 2) == at) for at in (0, 1))
    early = [noted(topic_name, page, number) for page, number in (("failing", 1), ("held", 1), (first, 1))]
    log._topics[topic_name], grown = log._topics[topic_name][:1], log._topics[topic_name]
    await log.publish([*early, noted(topic_name, second, 1)])
    log._topics[topic_name] = grown
    await log.publish([noted(topic_name, second, 2)])
    async with watched(platform, log, is_refused=True) as runtime:
        await asyncio.to_thread(gate.entered.wait, 30)
        said: list[str] = []
        with pytest.raises(ConfigurationError, match=rf"notebook.notes: {topic_name}/0 has 4 records and 0 parked"):
            await _accept(runtime, topic_name, patience_seconds=0.0)
        assert await value(runtime, "select count(*) from headrace.claim") == 1
        gate.open()
        await until(lambda: _is_drained(runtime), "the old partition is applied, but for its lane")
        with pytest.raises(ConfigurationError, match=r"/0 has 0 records and 1 parked events left\); let its workers"):
            await _accept(runtime, topic_name, patience_seconds=0.0)
        accepting = asyncio.create_task(_accept(runtime, topic_name, report=said.append))
        await until(lambda: said, "it says what it waits for")
        is_failing = False
        assert len(await accepting) == 1 and "1 parked events left" in said[0]
        await until(lambda: has_pages(runtime, {second: [1, 2], "failing": [1]}), "everything is applied", 15)


async def test_a_topic_that_grew_alone_is_named_in_readiness(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str
) -> None:
    """Two topics of one subscription: a number that only one of them has belongs to nobody, and is not silent."""
    other = f"{topic_name}-2"
    for name in (topic_name, other):
        await kafka.create_topic(name, 2)
    platform = notebook(settings_for(database_url, kafka.url, partitions=2), topic_name, service=service_name)
    _read_too(platform, other)
    async with watched(platform) as runtime:
        await _grow(runtime, kafka, topic_name, 4)
        condition = (False, ["not_co_partitioned:notes"])
        await until(lambda: runtime.health.readiness() == condition, "readiness names the subscription")
        assert f"({topic_name}: 4, {other}: 2)" in runtime.health.ready_report().body.decode()
    async with running(platform) as runtime:  # a start goes ahead as well: the old partitions can be drained
        await until(lambda: runtime.health.readiness() == condition, "readiness names the subscription")
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        await asyncio.to_thread(lambda: admin.create_partitions([NewPartitions(other, 4)])[other].result(30))
        await _accept(runtime, topic_name)
        await _accept(runtime, other)
    async with running(notebook_of_two(database_url, kafka, topic_name, other, service_name)) as runtime:
        assert runtime.health.readiness() == (True, [])
        assert len(runtime.consumers["notes"].workers) == 4


async def test_a_new_partition_inherits_the_newest_event_ids(pool: asyncpg.Pool, topic_name: str) -> None:
    """As many as the dedupe window holds, in their order, behind whatever the partition's ledger already has."""
    source, heir = TopicPartition(topic_name, 1), TopicPartition(topic_name, 3)
    ids = [bytes([number]) * 16 for number in range(10)]
    async with pool.acquire() as connection:
        for number in range(5):
            two, marks = ids[2 * number : 2 * number + 2], [number << 32 | 7, -1]
            row = Row(number + 1, Kind.BATCH, 1, 0, 9, 2, 0, 0, 0, b"".join(two), pack_marks(marks), b"emits")
            await insert_row(connection, "shop.notes", source, row)
        await insert_row(connection, "shop.notes", heir, Row(8, Kind.BATCH, 1, 0, 9, 0, 0, 0, 0, b"", b"", None))

        assert await inherit_ids(connection, "shop.notes", source, 3, 100, limit=3) == (11, 4)

        window = window_of(await read_window(connection, "shop.notes", heir, 11, 100), 100)
        assert list(window.marks) == ids[6:]
        assert [window.marks[known] for known in ids[6:]] == [3 << 32 | 7, -1, 4 << 32 | 7, -1]
        rows = await connection.fetch("select * from headrace.ledger where partition = 3 and sequence > 8")
        assert {(row["first_offset"], row["next_offset"], row["applied"], row["emits"]) for row in rows} == {
            (100, 100, 0, None)
        }
        assert await inherit_ids(connection, "shop.notes", source, 4, 0, limit=0) == (1, 0)


def notebook_of_two(database_url: str, kafka: KafkaServer, topic: str, other: str, service: str) -> Any:
    """Return a notebook that reads two topics of four partitions."""
    platform = notebook(settings_for(database_url, kafka.url, partitions=4), topic, service=service)
    _read_too(platform, other)
    return platform


def _read_too(platform: Headrace, topic: str) -> None:
    class Marked(Event, type="marked", topic=topic, key="page"):
        page: str

    @platform.registry.subscriptions["notes"].on(Marked)
    def mark(event: Marked) -> None: ...


def _look_at(platform: Headrace, topic: str, seen: list[list[int]]) -> None:
    class Looked(Event, type="looked", topic=topic, key="page"):
        page: str

    @platform.registry.subscriptions["notes"].on(Looked)
    def look(event: Looked, kept: State[Notes]) -> None:
        seen.append(list(kept.numbers))


async def _grow(runtime: Runtime, kafka: KafkaServer, topic: str, partitions: int) -> None:
    """Add partitions; the group's client asks for the topic's partitions now instead of after five minutes."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    await asyncio.to_thread(lambda: admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(30))
    assert runtime.log is not None
    log, membership = runtime.log, runtime.consumers["notes"]._membership
    client: Any = membership._consumer._client  # type: ignore[attr-defined]

    async def is_noticed() -> bool:
        await client.force_metadata_update()
        return (await log.topics([topic]))[topic].partitions == partitions and any(
            place.partition == partitions - 1
            for place in membership._owned  # type: ignore[attr-defined]
        )

    await until(is_noticed, "the group has the new partitions")


async def _accept(runtime: Runtime, topic: str, **options: Any) -> list[str]:
    assert runtime.pool is not None and runtime.log is not None
    async with runtime.pool.acquire() as connection:
        window_ids = runtime.settings.engine.dedupe_window_ids
        return await accept_topic(connection, runtime.log, topic, window_ids=window_ids, **options)


async def _is_drained(runtime: Runtime) -> bool:
    """True when every claim has reached its partition's end."""
    assert runtime.log is not None and runtime.pool is not None
    rows = await runtime.pool.fetch("select topic, partition, next_offset from headrace.claim")
    bounds = await runtime.log.bounds([TopicPartition(topic, number) for topic, number, _ in rows])
    return all(bounds[TopicPartition(topic, number)].end == offset for topic, number, offset in rows)
