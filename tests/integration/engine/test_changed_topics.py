"""A log that does not continue at the claims' next offsets is refused, in a sentence that says what to do."""

from __future__ import annotations

import asyncio
import re

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.engine.accept import accept_topic
from headrace.errors import ConfigurationError
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.runtime import Runtime
from tests.support.auditing import assert_promises_hold
from tests.support.kafka import KafkaServer
from tests.support.platform import (
    fetch,
    group,
    notebook,
    noted,
    pages,
    publish,
    running,
    settings_for,
    spread,
    until_settled,
)
from tests.support.waiting import until

PAGES = [f"page-{number}" for number in range(12)]


@pytest.mark.parametrize("records", [3, 10, 25])
async def test_topic_created_again_is_refused_until_it_is_accepted(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str, records: int
) -> None:
    """A person accepts it with `headrace topics --accept`."""
    platform = notebook(settings_for(database_url, kafka.url, partitions=1), topic_name, service=service_name)
    old = [noted(topic_name, "a", number, id=f"old-{number}") for number in range(10)]
    await kafka.create_topic(topic_name, 1)
    async with running(platform) as runtime:
        await publish(runtime, *old)
        await until_settled(runtime, "notes")
    await kafka.delete_topic(topic_name)
    await kafka.create_topic(topic_name, 1)

    async with running(
        notebook(settings_for(database_url, kafka.url, partitions=1), f"{topic_name}-2", service=service_name)
    ) as other:
        # Sent by a service that has nothing to do with the topic, the first ones with the very same bytes.
        new = [noted(topic_name, "a", number, id=f"old-{number}") for number in range(min(records, 10))]
        await publish(other, *(new + [noted(topic_name, "a", number) for number in range(10, records)]))

    async with running(platform, is_refused=True) as runtime:
        ready, reasons = runtime.health.readiness()
        assert not ready and reasons == ["partition_refused:notes/0"]
        detail = runtime.health.ready_report().body.decode()
        assert re.search(rf"headrace topics --accept {topic_name}", detail)
        assert "created again" in detail
        assert await pages(runtime) == {"a": list(range(10))}
        lines = await _accept(runtime, topic_name)
        assert lines == [f"{service_name}.notes: {topic_name}/0 continues at offset 0"]
    async with running(platform) as runtime:
        await until_settled(runtime, "notes")
        assert runtime.health.readiness() == (True, [])
        assert await pages(runtime) == {"a": [*range(10), *range(10, records)]}  # ids are known beyond the topic's life
    await assert_promises_hold(database_url)


async def test_records_that_retention_took_are_reported_as_missing(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str
) -> None:
    """Retention deleted them before they were read: the partition is refused until a person accepts the loss."""
    settings = settings_for(database_url, kafka.url, partitions=2, dedupe_window_ids=0, batch_records=10)
    platform = notebook(settings, topic_name, service=service_name)
    async with running(platform) as runtime:
        await publish(runtime, *spread(topic_name, PAGES, 5))
        await until_settled(runtime, "notes")
        before = await _next_offsets(runtime)
    async with running(notebook(settings, topic_name, subscription="other", service=service_name)) as other:
        await publish(other, *(noted(topic_name, page, 6) for page in PAGES))
        await until_settled(other, "other")
    await _delete_records(kafka, topic_name, 0, before[0] + 2)

    async with running(platform, is_refused=True) as runtime:
        assert runtime.health.readiness() == (False, ["partition_refused:notes/0"])
        detail = runtime.health.ready_report().body.decode()
        assert "2 records are gone (retention passed" in detail and f"--accept {topic_name}" in detail
        flowing = [page for page in PAGES if partition_of(page) == 1]
        await until(lambda: _hold(runtime, flowing, [1, 2, 3, 4, 5, 6]), "the other partition flows on")
        lines = await _accept(runtime, topic_name)
        assert lines == [f"{service_name}.notes: {topic_name}/0 continues at offset {before[0] + 2}"]
    async with running(platform) as runtime:
        await until_settled(runtime, "notes")
        found = await pages(runtime)
        held = [page for page in PAGES if partition_of(page) == 0]
        assert all(found[page] in ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5]) for page in held), "an event was applied again"
        assert sum(found[page] == [1, 2, 3, 4, 5] for page in held) == 2, "the two that are gone"
    await assert_promises_hold(database_url)


async def test_another_log_is_refused_until_it_is_accepted(database_url: str, topic_name: str) -> None:
    """Once it is accepted it is read from its beginning."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
    log = MemoryLog()
    with pytest.raises(ConfigurationError, match="HEADRACE_LOG names another log than before"):
        async with running(platform, log):
            pass
    async with running(notebook(settings_for(database_url), f"{topic_name}-2"), log) as other:
        await log.publish([noted(topic_name, "a", 3)])
        assert await _accept(other, topic_name) == [f"notebook.notes: {topic_name}/0 continues at offset 0"]
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2, 3]}


async def test_accepting_a_topic_that_goes_on_moves_nothing(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=3, dedupe_window_ids=0), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, PAGES, 2))
        await until_settled(runtime, "notes")
        before = await _next_offsets(runtime)
        assert await _accept(runtime, topic_name) == []
        assert await _next_offsets(runtime) == before
        await publish(runtime, *(noted(topic_name, page, 3) for page in PAGES))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {page: [1, 2, 3] for page in PAGES}


def partition_of(page: str) -> int:
    """Return which of two partitions a page lives on."""
    return partition_for(page.encode(), 2)


async def _accept(runtime: Runtime, topic: str) -> list[str]:
    assert runtime.pool is not None and runtime.log is not None
    async with runtime.pool.acquire() as connection:
        return await accept_topic(connection, runtime.log, topic, window_ids=runtime.settings.engine.dedupe_window_ids)


async def _next_offsets(runtime: Runtime) -> dict[int, int]:
    query = "select partition, next_offset from headrace.claim where subscription = $1"
    rows = await fetch(runtime, query, group(runtime, "notes"))
    return {row["partition"]: row["next_offset"] for row in rows}


async def _hold(runtime: Runtime, names: list[str], numbers: list[int]) -> bool:
    found = await pages(runtime)
    return all(found.get(name) == numbers for name in names)


async def _delete_records(kafka: KafkaServer, topic: str, partition: int, before: int) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    place = TopicPartition(topic, partition, before)
    await asyncio.to_thread(lambda: admin.delete_records([place])[place].result(30))
