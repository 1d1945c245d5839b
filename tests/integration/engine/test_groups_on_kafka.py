"""What several processes, brokers and databases in one Kafka group do to each other: nothing that loses or doubles."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

from headrace import Event, Headrace, State
from headrace.database.migrate import migrate
from headrace.engine.worker import Phase
from headrace.log.partitioner import partition_for
from headrace.log.ports import TopicPartition
from headrace.runtime import Runtime
from tests.support.kafka import KafkaServer
from tests.support.platform import (
    Notes,
    fetch,
    group,
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
)
from tests.support.postgres import PostgresServer
from tests.support.producing import produce
from tests.support.waiting import until

PAGES = [f"page-{number}" for number in range(20)]


async def test_two_databases_in_one_group_share_no_partition(
    postgres: PostgresServer, database_url: str, topic_name: str, kafka: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are told, in readiness and in the log; one of them applies everything, until the other has left."""
    name = f"notes-{secrets.token_hex(4)}"  # other tests of this broker have a group `notebook.notes`

    def service(url: str) -> Headrace:
        return notebook(settings_for(url, kafka.url, partitions=4), topic_name, subscription=name)

    await kafka.create_topic(topic_name, 4)
    # Not the template of the tests' databases: its copies would all be one database to the group.
    async with postgres.database(migrated=False) as other_url, running(service(database_url)) as first:
        await migrate(other_url, "pre")
        async with running(service(other_url), is_waiting=True) as second:
            refused = [f"group_refused:{name}"]
            for runtime in (first, second):
                await until(partial(_is_refused, runtime, refused), "readiness names it")
                assert "database" in runtime.health.ready_report().body.decode()
            said = [entry for entry in caplog.records if "shared with another database" in entry.getMessage()]
            assert len(said) >= 2
            await produce(kafka.bootstrap, [noted(topic_name, page, 1) for page in PAGES])
            both = (first, second)
            await until(lambda: _seen_by(both, name), "one of them has applied everything")
            assert sorted([await _count(each, name) for each in both]) == [0, len(PAGES)]
            assert sorted(len(each.consumers[name].workers) for each in both) == [0, 4]
        await until(lambda: first.health.readiness() == (True, []), "the group has one database again")


async def test_a_rollout_that_adds_a_topic_causes_no_duel(
    database_url: str, topic_name: str, kafka: KafkaServer
) -> None:
    """Old and new owners run side by side: claims are not taken to and fro, and every event is applied once."""
    added = f"{topic_name}-2"
    for name in (topic_name, added):
        await kafka.create_topic(name, 3)
    numbers = range(1, 11)

    async def send(topic: str, type: str) -> None:
        for number in numbers:
            data = [{"page": page, "number": number} for page in PAGES]
            await produce(kafka.bootstrap, [record(topic, type, each, key=str(each["page"])) for each in data])

    old, new = (_reading(database_url, kafka, *topics) for topics in ((topic_name,), (topic_name, added)))
    async with running(old) as before:
        sending = asyncio.create_task(send(topic_name, "noted-0"))
        async with running(new, is_waiting=True) as after:
            await until(lambda: after.consumers["notes"].workers, "the new one has partitions")
            await asyncio.gather(sending, send(added, "noted-1"))
            await until(lambda: _drained(before, (topic_name,)), "what both read is applied")
            await before.stop()
            await until_settled(after, "notes", seconds=60)
            found = await pages(after)
            for page in PAGES:
                assert [number for number in found[page] if number < 100] == list(numbers)
                assert [number - 100 for number in found[page] if number > 100] == list(numbers)
            assert await value(after, "select max(epoch) from headrace.claim") <= 5
            assert sample(before, "claim_fenced_total") + sample(after, "claim_fenced_total") == 0


async def test_a_worker_is_ready_once_it_has_joined(database_url: str, topic_name: str, kafka: KafkaServer) -> None:
    """A stranger with another assignor holds the group; a spare worker without a partition is ready all the same."""
    name = f"notes-{secrets.token_hex(4)}"
    settings = settings_for(database_url, kafka.url, partitions=1).model_copy(update={"role": "worker"})
    await kafka.create_topic(topic_name, 1)
    stranger = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": f"notebook.{name}"})
    stranger.subscribe([topic_name])
    await until(lambda: asyncio.to_thread(_has_partition, stranger), "the stranger is in the group")
    async with running(notebook(settings, topic_name, subscription=name), is_waiting=True) as first:
        assert first.health.readiness() == (False, [f"joining:{name}"])
        await asyncio.to_thread(stranger.close)
        await until(lambda: first.health.readiness() == (True, []), "the worker has joined")
        async with running(notebook(settings, topic_name, subscription=name), is_waiting=True) as spare:
            await until(lambda: spare.health.readiness() == (True, []), "the second worker has joined")


def _has_partition(consumer: Consumer) -> bool:
    consumer.poll(0.2)
    return bool(consumer.assignment())


async def test_a_scaler_sees_a_group_offset_before_any_event(
    database_url: str, topic_name: str, kafka: KafkaServer
) -> None:
    """Without one, KEDA would keep a pod for each partition."""
    name = f"notes-{secrets.token_hex(4)}"
    await kafka.create_topic(topic_name, 3)
    async with running(notebook(settings_for(database_url, kafka.url, partitions=3), topic_name, subscription=name)):
        scaler = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": f"notebook.{name}"})
        with contextlib.closing(scaler):
            asked = [KafkaPartition(topic_name, number) for number in range(3)]

            async def offsets() -> list[int]:
                return [each.offset for each in await asyncio.to_thread(scaler.committed, asked, 10)]

            await until(lambda: _equals(offsets, [0, 0, 0]), "every partition has an offset")


async def _equals(read: Callable[[], Awaitable[list[int]]], wanted: list[int]) -> bool:
    return await read() == wanted


async def test_a_leaderless_partition_stops_only_its_worker(
    database_url: str, topic_name: str, brokers: list[KafkaServer]
) -> None:
    """Also at a start. Before anything is known of a topic all of its partitions have to answer once."""
    first, second = brokers
    await first.create_topic_on(topic_name, [[first.node_id], [second.node_id]])
    alive, dead = (next(page for page in PAGES if partition_for(page.encode(), 2) == number) for number in (0, 1))
    settings = settings_for(database_url, first.url, partitions=2)
    kafka = settings.kafka.model_copy(update={"request_timeout_seconds": 8.0})
    platform = notebook(settings.model_copy(update={"kafka": kafka}), topic_name)
    await _kill(first, second, topic_name)
    async with running(platform, is_waiting=True) as runtime:
        await until(lambda: _waits(runtime, 0), "the living partition waits, since nobody knows where the other begins")
        assert await value(runtime, "select count(*) from headrace.claim") == 0
        await second.start()
        await until(lambda: _phases(runtime) == {Phase.RUNNING}, "both are read", 60)
        await publish(runtime, noted(topic_name, alive, 1), noted(topic_name, dead, 1))
        await until_settled(runtime, "notes")
    await _kill(first, second, topic_name)
    async with running(platform, is_waiting=True) as runtime:
        await produce(first.bootstrap, [noted(topic_name, alive, 2)])
        await until(lambda: has_pages(runtime, {alive: [1, 2]}), "the living partition is applied")
        workers = runtime.consumers["notes"].workers
        assert {number: workers[number].phase is Phase.RUNNING for number in workers} == {0: True, 1: False}
        await second.start()
        await until(lambda: _phases(runtime) == {Phase.RUNNING}, "both are read", 60)
        await publish(runtime, noted(topic_name, dead, 2))
        await until(lambda: has_pages(runtime, {alive: [1, 2], dead: [1, 2]}), "the other one is applied as well")


def _reading(database_url: str, kafka: KafkaServer, *topics: str) -> Headrace:
    """Return a notebook that reads the topics; numbers of the second one are noted with 100 more."""
    platform = Headrace("notebook", settings_for(database_url, kafka.url, partitions=3))
    notes = platform.subscription("notes")
    for place, topic in enumerate(topics):

        class Noted(Event, type=f"noted-{place}", topic=topic, key="page"):
            page: str
            number: int

        def note(event: Any, kept: State[Notes], add: int = 100 * place) -> None:
            kept.numbers.append(event.number + add)

        note.__annotations__["event"] = Noted
        notes.on(Noted)(note)
    return platform


async def _kill(first: KafkaServer, second: KafkaServer, topic: str) -> None:
    await second.kill()

    async def is_leaderless() -> bool:
        return await first.has_leaders(topic) == [True, False]

    await until(is_leaderless, "the cluster knows that the second broker is gone")


def _phases(runtime: Runtime) -> set[Phase]:
    workers = runtime.consumers["notes"].workers.values() if "notes" in runtime.consumers else []
    return {worker.phase for worker in workers}


def _is_refused(runtime: Runtime, reasons: list[str]) -> bool:
    return runtime.health.readiness() == (False, reasons)


async def _count(runtime: Runtime, subscription: str) -> int:
    sql = "select count(*) from headrace.state where subscription = $1"
    return int(await value(runtime, sql, group(runtime, subscription)))


def _waits(runtime: Runtime, number: int) -> bool:
    workers = runtime.consumers["notes"].workers if "notes" in runtime.consumers else {}
    return number in workers and workers[number].phase is Phase.WAITING


async def _seen_by(runtimes: tuple[Runtime, ...], subscription: str) -> bool:
    return sum([await _count(runtime, subscription) for runtime in runtimes]) >= len(PAGES)


async def _drained(runtime: Runtime, topics: tuple[str, ...]) -> bool:
    assert runtime.log is not None
    sql = "select topic, partition, next_offset from headrace.claim where topic = any($1::text[])"
    rows = await fetch(runtime, sql, list(topics))
    bounds = await runtime.log.bounds([TopicPartition(topic, number) for topic, number, _ in rows])
    return all(bounds[TopicPartition(topic, number)].end == offset for topic, number, offset in rows)
