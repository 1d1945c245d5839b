"""Reading Kafka: transactions, retention, foreign producers, bytes that aiokafka's own parser refuses."""

from __future__ import annotations

import asyncio
import contextlib

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient

from headrace.errors import LogMismatchError
from headrace.log.kafka_linger import LingeringFetcher
from headrace.log.partitioner import partition_for
from headrace.log.ports import Bounds, Record, TopicPartition
from tests.integration.log.support import (
    MANY_BYTES,
    RawName,
    fetch_some,
    foreign_producer,
    kafka_log,
    produce_raw,
    records,
    values,
)
from tests.support.kafka import KafkaServer
from tests.support.waiting import until


async def test_an_aborted_transaction_is_never_read_and_leaves_no_lag(kafka: KafkaServer, topic_name: str) -> None:
    await kafka.create_topic(topic_name, 1)
    partition = TopicPartition(topic_name, 0)
    producer = foreign_producer(kafka.bootstrap, **{"transactional.id": topic_name})
    await asyncio.to_thread(producer.init_transactions)
    for number, is_kept in enumerate([True, False, True, False]):
        producer.begin_transaction()
        for part in range(3):
            producer.produce(topic_name, key=b"k", value=b"%d" % (10 * number + part))
        await asyncio.to_thread(producer.flush)  # else an abort throws away what was not sent
        await asyncio.to_thread(producer.commit_transaction if is_kept else producer.abort_transaction)

    async with kafka_log(kafka.url) as log:
        end = 4 * (3 + 1)  # each transaction ends with a marker

        async def is_decided() -> bool:
            return (await log.bounds([partition]))[partition].end == end

        await until(is_decided, "the last marker, which follows the abort's answer, is in the log")
        reader = await log.reader({partition: 0})
        found: list[Record] = []

        async def is_at_the_end() -> bool:
            found.extend(await fetch_some(reader))
            return reader.position(partition) == end

        await until(is_at_the_end, "the reader's position passed the aborted records and the markers")
        await reader.close()

    assert values(found) == [0, 1, 2, 20, 21, 22]


async def test_a_reader_opened_within_an_aborted_transaction_passes_it(kafka: KafkaServer, topic_name: str) -> None:
    await kafka.create_topic(topic_name, 1)
    partition = TopicPartition(topic_name, 0)
    producer = foreign_producer(kafka.bootstrap, **{"transactional.id": topic_name})
    await asyncio.to_thread(producer.init_transactions)
    producer.begin_transaction()
    for number in range(5):
        producer.produce(topic_name, key=b"k", value=b"%d" % number)
    await asyncio.to_thread(producer.flush)
    await asyncio.to_thread(producer.abort_transaction)

    async with kafka_log(kafka.url) as log:
        reader = await log.reader({partition: 2})
        found: list[Record] = []

        async def is_at_the_end() -> bool:
            found.extend(await fetch_some(reader))
            return reader.position(partition) == 6

        await until(is_at_the_end, "the reader's position passed the aborted records")
        await reader.close()

    assert found == []


async def test_records_of_an_open_transaction_are_pending(kafka: KafkaServer, topic_name: str) -> None:
    await kafka.create_topic(topic_name, 1)
    partition = TopicPartition(topic_name, 0)
    producer = foreign_producer(kafka.bootstrap, **{"transactional.id": topic_name})
    await asyncio.to_thread(producer.init_transactions)
    producer.begin_transaction()
    producer.produce(topic_name, key=b"k", value=b"1")
    await asyncio.to_thread(producer.flush)

    async with kafka_log(kafka.url) as log:
        assert await log.bounds([partition]) == {partition: Bounds(0, 0, 1)}
        await asyncio.to_thread(producer.commit_transaction)

        async def is_committed() -> bool:
            return await log.bounds([partition]) == {partition: Bounds(0, 2, 2)}

        await until(is_committed, "the marker, which follows the commit's answer, is in the log")


async def test_what_retention_deleted_is_named(kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(kafka.url) as log:
        await log.create(topic_name, 1)
        await log.publish(records(topic_name, range(10)))
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
        (deleted,) = admin.delete_records([confluent_kafka.TopicPartition(topic_name, 0, 6)]).values()
        await asyncio.to_thread(deleted.result, 30)
        reader = await log.reader({TopicPartition(topic_name, 0): 2})

        with pytest.raises(LogMismatchError, match=r"begins at offset 6 .* cannot continue at 2: retention"):
            await until(lambda: fetch_some(reader), "the reader says so")
        await reader.close()


async def test_a_topic_that_is_deleted_while_it_is_read_is_named(kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(kafka.url, request_timeout_seconds=1) as log:
        await log.create(topic_name, 1)
        reader = await log.reader({TopicPartition(topic_name, 0): 0})
        await fetch_some(reader)

        await kafka.delete_topic(topic_name)

        with pytest.raises(LogMismatchError, match="does not exist"):
            await until(lambda: fetch_some(reader), "the reader says so")
        await reader.close()
        assert await log.topics([topic_name]) == {}


async def test_librdkafka_puts_a_key_where_we_do(kafka: KafkaServer, topic_name: str) -> None:
    await kafka.create_topic(topic_name, 7)
    keys = [b"a", b"ab", b"abc", b"abcd", "größe".encode(), b"\xff\xfe", *(b"customer-%d" % n for n in range(200))]
    producer = foreign_producer(kafka.bootstrap, partitioner="murmur2_random")
    landed: dict[bytes, int] = {}

    def delivered(error: object, message: confluent_kafka.Message) -> None:
        assert error is None
        landed[bytes(message.key() or b"")] = message.partition() or 0

    for key in keys:
        producer.produce(topic_name, key=key, value=b"v", on_delivery=delivered)
    await asyncio.to_thread(producer.flush)

    assert landed == {key: partition_for(key, 7) for key in keys}


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4], ids=["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("max_records", [2, 1_000])
async def test_a_header_name_that_is_not_utf_8_stops_nothing(
    kafka: KafkaServer, topic_name: str, codec: int, max_records: int
) -> None:
    await kafka.create_topic(topic_name, 1)
    partition = TopicPartition(topic_name, 0)
    bad = {RawName(b"caf\xe9"): b"\xff", "good": b"1"}
    async with kafka_log(kafka.url) as log:
        await log.publish(records(topic_name, [0, 1]))
        await produce_raw(
            kafka.bootstrap, topic_name, [(b"2", {}), (b"3", bad), (b"4", {"good": b"2"}), (b"5", bad)], codec
        )
        await log.publish(records(topic_name, [6, 7]))
        reader = await log.reader({partition: 0})
        found: list[Record] = []

        async def is_complete() -> bool:
            found.extend((await reader.fetch(max_records, MANY_BYTES, 0.2)).get(partition, []))
            return len(found) >= 8

        await until(is_complete, "all eight records were read")
        assert reader.position(partition) == 8
        assert await reader.fetch(10, MANY_BYTES, 0.05) == {}
        await reader.close()

    assert values(found) == list(range(8))
    assert [record.offset for record in found] == list(range(8))
    assert [record.key for record in found[2:6]] == [b"key"] * 4
    assert list(found[3].headers) == [("caf\\xe9", b"\xff"), ("good", b"1")]
    assert list(found[4].headers) == [("good", b"2")]
    assert len({abs(record.timestamp - found[0].timestamp) // 60_000 for record in found}) == 1


async def test_an_odd_header_name_shows_no_aborted_records(kafka: KafkaServer, topic_name: str) -> None:
    await kafka.create_topic(topic_name, 1)
    partition = TopicPartition(topic_name, 0)
    producer = foreign_producer(kafka.bootstrap, **{"transactional.id": topic_name})
    await asyncio.to_thread(producer.init_transactions)
    producer.begin_transaction()
    producer.produce(topic_name, key=b"k", value=b"-1")
    await asyncio.to_thread(producer.flush)
    await asyncio.to_thread(producer.abort_transaction)
    await produce_raw(kafka.bootstrap, topic_name, [(b"0", {RawName(b"\xe9"): b""})])

    async with kafka_log(kafka.url) as log:
        reader = await log.reader({partition: 0})
        found: list[Record] = []

        async def is_complete() -> bool:
            found.extend(await fetch_some(reader))
            return reader.position(partition) == 3

        await until(is_complete, "the reader's position is past the odd record")
        await reader.close()

    assert values(found) == [0]


async def test_group_offsets_follow_as_a_hint(kafka: KafkaServer, topic_name: str) -> None:
    from headrace.testing.conformance.log_suite import Seat

    async with kafka_log(kafka.url) as log:
        await log.create(topic_name, 2)
        seat = Seat(log, topic_name, [topic_name])
        await seat.start()
        await seat.owns(lambda owned: len(owned) == 2)

        await seat.membership.commit({TopicPartition(topic_name, 1): 41, TopicPartition(topic_name, 7): 1})
        await seat.stop()

    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": topic_name, "log_level": 0})
    with contextlib.closing(consumer):
        (committed,) = await asyncio.to_thread(consumer.committed, [confluent_kafka.TopicPartition(topic_name, 1)], 30)
    assert committed.offset == 41


async def test_next_request_gathers_for_as_long_as_the_batch_takes(
    kafka: KafkaServer, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kafka.create_topic(topic_name, 1)
    lingered: list[float] = []
    monkeypatch.setattr(LingeringFetcher, "linger", lambda fetcher, seconds: lingered.append(seconds))
    async with kafka_log(kafka.url) as log:
        reader = await log.reader({TopicPartition(topic_name, 0): 0})
        for number in range(2):
            await log.publish(records(topic_name, [number]))
            await until(lambda: fetch_some(reader), "the record is there")
            assert len(lingered) == number + 1, "a request waits for each fetch that brought something, and no other"
        await reader.close()
