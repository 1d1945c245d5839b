"""What only a real Kafka does to a consumer: transactions, markers without records, keys on two partitions."""

from __future__ import annotations

import asyncio
import secrets

from confluent_kafka import Consumer, Producer, TopicPartition

from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord
from headrace.runtime import Runtime
from tests.support.auditing import assert_promises_hold
from tests.support.kafka import KafkaServer
from tests.support.lag import lag as lag_by_librdkafka
from tests.support.obstacles import let_pass
from tests.support.platform import (
    QUICK,
    fetch,
    group,
    notebook,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    until_settled,
    value,
)
from tests.support.producing import produce, produce_in_transaction
from tests.support.waiting import until


async def test_aborted_transactions_are_never_applied_and_leave_no_lag(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str
) -> None:
    platform = notebook(settings_for(database_url, kafka.url, partitions=1), topic_name, service=service_name)
    async with running(platform) as runtime:

        async def send(numbers: range, *, is_committed: bool) -> None:
            records = [noted(topic_name, "a", number) for number in numbers]
            name = f"sender-{secrets.token_hex(4)}"
            await produce_in_transaction(kafka.bootstrap, records, name=name, is_committed=is_committed)

        await send(range(1, 6), is_committed=True)
        await send(range(100, 105), is_committed=False)
        await until(lambda: _has_no_lag(runtime, kafka, topic_name), "the claim is behind the markers")
        await send(range(6, 11), is_committed=True)
        await send(range(200, 205), is_committed=False)  # the log ends in records that nobody is to see
        await until(lambda: _has_no_lag(runtime, kafka, topic_name), "the claim is behind the markers")

        assert await pages(runtime) == {"a": list(range(1, 11))}
        assert await value(runtime, "select next_offset from headrace.claim") == 20 + 4
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0
        assert sample(runtime, "log_fetched_records_total") == 10
    async with running(platform) as runtime:  # the record before the claim's next offset is one that nobody sees
        await publish(runtime, noted(topic_name, "a", 11))
        await until_settled(runtime, "notes")
        assert (await pages(runtime))["a"] == list(range(1, 12))
    await assert_promises_hold(database_url)


async def test_batch_across_unseen_records_ends_behind_its_last_one(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str
) -> None:
    """Aborted transactions and markers lie between the records: the batch ends behind its last record."""
    await kafka.create_topic(topic_name, 1)
    for numbers, is_committed in ((range(1, 6), True), (range(100, 105), False), (range(6, 11), True)):
        records = [noted(topic_name, "a", number) for number in numbers]
        name = f"sender-{secrets.token_hex(4)}"
        await produce_in_transaction(kafka.bootstrap, records, name=name, is_committed=is_committed)
    async with running(
        notebook(settings_for(database_url, kafka.url, partitions=1), topic_name, service=service_name)
    ) as runtime:
        await until(lambda: _has_no_lag(runtime, kafka, topic_name), "the claim is behind the markers")
        assert await pages(runtime) == {"a": list(range(1, 11))}
        rows = await fetch(runtime, "select first_offset, next_offset, applied from headrace.ledger where applied > 0")
        # 5 records and a marker, 5 aborted records and a marker, 5 records
        assert [tuple(row) for row in rows] == [(0, 17, 10)]
        assert await value(runtime, "select next_offset from headrace.claim") == 18


async def test_open_transaction_is_waited_for_and_keeps_its_order(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str
) -> None:
    """Records behind an open transaction are not applied before it ends: log order is the order."""
    platform = notebook(settings_for(database_url, kafka.url, partitions=1), topic_name, service=service_name)
    async with running(platform) as runtime:
        producer = await _open_transaction(kafka, noted(topic_name, "a", 1))
        await publish(runtime, noted(topic_name, "a", 2))
        await asyncio.to_thread(producer.commit_transaction, 30)
        await until(lambda: _has_no_lag(runtime, kafka, topic_name), "the claim is behind the markers")
        assert await pages(runtime) == {"a": [1, 2]}


async def test_lag_counts_what_an_open_transaction_holds_back(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str
) -> None:
    """It is pending although nobody may read it yet, and the metric names the reason; the worker is not stuck."""
    settings = settings_for(database_url, kafka.url, partitions=1, stuck_seconds=1.0)
    async with running(notebook(settings, topic_name, service=service_name), pace=QUICK) as runtime:
        producer = await _open_transaction(kafka, noted(topic_name, "a", 1))
        await publish(runtime, *(noted(topic_name, "a", number) for number in (2, 3, 4)))
        await until(lambda: sample(runtime, "lag_records") == 4, "they are counted as lag")
        assert sample(runtime, "lag_held_records") == 4
        await let_pass(2.0)
        assert sample(runtime, "worker_abandoned_total") == 0
        assert await pages(runtime) == {}
        await asyncio.to_thread(producer.commit_transaction, 30)
        await until(lambda: sample(runtime, "lag_records") == 0, "there is no lag any more")
        assert sample(runtime, "lag_held_records") == 0
        assert await pages(runtime) == {"a": [1, 2, 3, 4]}


async def test_key_on_an_unexpected_partition_loses_no_update(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str
) -> None:
    """The same keys on both partitions at once, each owned by a process of its own that keeps states in memory.

    The records are on a partition that murmur2 would not choose, and are counted.
    """
    settings = settings_for(database_url, kafka.url, partitions=2, batch_records=5)
    names, each = [f"page-{number}" for number in range(6)], 60
    first, second = (
        notebook(settings, topic_name, service=service_name),
        notebook(settings, topic_name, service=service_name),
    )
    async with running(first) as one, running(second) as two:
        await until(lambda: _owned(one) == _owned(two) == 1, "each owns a partition")
        for start in range(0, each, 10):
            for partition in (0, 1):
                numbers = range(1_000 * partition + start, 1_000 * partition + start + 10)
                records = [noted(topic_name, page, number) for number in numbers for page in names]
                await produce(kafka.bootstrap, records, partition=partition)
        await until_settled(one, "notes", seconds=60)
        found = await pages(one)
        for page in names:
            for partition in (0, 1):
                part = [number for number in found[page] if number // 1_000 == partition]
                assert part == list(range(1_000 * partition, 1_000 * partition + each))
        strays = sum(each for page in names for partition in (0, 1) if partition_for(page.encode(), 2) != partition)
        assert sample(one, "events_stray_total") + sample(two, "events_stray_total") == strays
        reruns = sample(one, "batch_reruns_total", cause="conflict") + sample(
            two, "batch_reruns_total", cause="conflict"
        )
        assert reruns > 0, "the owners never met: the test did not test it"
        assert not await fetch(one, "select from headrace.parked")


async def test_two_owners_of_the_same_states_never_deadlock(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str
) -> None:
    settings = settings_for(database_url, kafka.url, partitions=2, batch_records=100)
    names = [f"page-{number}" for number in range(50)]
    async with running(notebook(settings, topic_name, service=service_name)) as runtime:
        await asyncio.gather(
            produce(kafka.bootstrap, [noted(topic_name, page, 0) for page in names * 20], partition=0),
            produce(kafka.bootstrap, [noted(topic_name, page, 1) for page in reversed(names * 20)], partition=1),
        )
        await until_settled(runtime, "notes", seconds=60)
        assert {page: sorted(numbers) for page, numbers in (await pages(runtime)).items()} == {
            page: [0] * 20 + [1] * 20 for page in names
        }
        assert sample(runtime, "db_errors_total", kind="deadlock") == 0


async def test_group_offsets_follow_the_claims(database_url: str, topic_name: str, kafka: KafkaServer) -> None:
    """From the claim on, also if nothing was ever read: a scaler that sees no offset starts a pod per partition."""
    name = f"notes-{secrets.token_hex(4)}"
    platform = notebook(settings_for(database_url, kafka.url, partitions=2), topic_name, subscription=name)
    async with running(platform) as runtime:
        consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group(runtime, name)})
        try:
            await until(lambda: _follows(consumer, topic_name, {0: 0, 1: 0}), "the group has offsets before any record")
            await publish(runtime, *(noted(topic_name, f"page-{number}", 1) for number in range(40)))
            await until_settled(runtime, name)
            rows = await fetch(runtime, "select partition, next_offset from headrace.claim")
            claimed = {row["partition"]: row["next_offset"] for row in rows}
            await until(lambda: _follows(consumer, topic_name, claimed), "the group's offsets are the claims'")
        finally:
            await asyncio.to_thread(consumer.close)


async def _follows(consumer: Consumer, topic: str, claimed: dict[int, int]) -> bool:
    wanted = [TopicPartition(topic, number) for number in claimed]
    committed = await asyncio.to_thread(consumer.committed, wanted, 10)
    return {place.partition: place.offset for place in committed} == claimed


async def _has_no_lag(runtime: Runtime, kafka: KafkaServer, topic: str) -> bool:
    assert runtime.pool is not None
    return await lag_by_librdkafka(kafka.bootstrap, runtime.pool, group(runtime, "notes"), 1, topic) == 0


def _owned(runtime: Runtime) -> int:
    return len(runtime.consumers["notes"].workers)


async def _open_transaction(kafka: KafkaServer, record: NewRecord) -> Producer:
    """Return a producer whose open transaction holds the record."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": secrets.token_hex(4)})

    def begin() -> None:
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
        producer.flush(30)

    await asyncio.to_thread(begin)
    return producer
