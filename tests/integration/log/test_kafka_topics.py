"""Topics that come and go: no request of ours creates one, and one that is created again is not taken for the old one.

Brokers create a topic that they are asked about, unless they are told not to.
"""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import OffsetOutOfRangeError

from headrace.errors import LogMismatchError, TransportError
from headrace.log.ports import Reader, TopicPartition
from headrace.testing.conformance.log_suite import Seat
from tests.integration.log.support import fetch_some, foreign_producer, kafka_log, records, values
from tests.support.deafness import Deafness
from tests.support.kafka import KafkaServer
from tests.support.waiting import until


async def test_the_broker_creates_topics_for_others(kafka: KafkaServer, topic_name: str) -> None:
    """Otherwise the tests below would prove nothing."""
    if kafka.is_external:
        pytest.skip("an external broker may be configured differently")
    producer = foreign_producer(kafka.bootstrap)
    producer.produce(topic_name, b"value")
    await asyncio.to_thread(producer.flush)

    async with kafka_log(kafka.url) as log:
        assert topic_name in await log.topics([topic_name])


async def test_a_topic_deleted_while_in_use_stays_deleted(kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(kafka.url, request_timeout_seconds=3) as log:
        await log.create(topic_name, 2)
        await log.publish(records(topic_name, range(20)))
        reader = await log.reader({TopicPartition(topic_name, 0): 0})
        await until(lambda: fetch_some(reader), "records are read")
        seat = Seat(log, topic_name, [topic_name])
        await seat.start()
        await seat.owns(lambda owned: len(owned) == 2)
        consumer = seat.membership._consumer  # type: ignore[attr-defined]
        publisher = log._publisher._client
        assert publisher is not None

        await kafka.delete_topic(topic_name)
        with pytest.raises(LogMismatchError):
            await log.publish(records(topic_name, range(20)))
        with pytest.raises(LogMismatchError):
            await until(lambda: fetch_some(reader), "the reader says that the topic is gone")
        for client in (consumer._client, publisher, reader._consumer._client):
            await client.force_metadata_update()

        assert await log.topics([topic_name]) == {}
        await seat.stop()
        await reader.close()
        assert await log.topics([topic_name]) == {}


async def test_a_topic_that_is_created_again_is_published_to(kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(kafka.url, request_timeout_seconds=5) as log:
        await log.create(topic_name, 4)
        await log.publish(records(topic_name, range(20)))
        await kafka.delete_topic(topic_name)
        with pytest.raises(LogMismatchError):
            await log.publish(records(topic_name, range(20)))

        await log.create(topic_name, 2)

        positions = await log.publish(records(topic_name, range(20)))
        assert {position.partition for position in positions} == {0, 1}


async def test_a_topic_that_is_created_again_is_not_read_on(
    kafka: KafkaServer, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it holds the reader's position, and the reader has heard nothing of it; another reader reads it."""
    deafness, partition = Deafness(monkeypatch), TopicPartition(topic_name, 0)
    async with kafka_log(kafka.url) as log:
        await log.create(topic_name, 1)
        await log.publish(records(topic_name, range(20)))
        reader = await log.reader({partition: 10})
        assert await _read(reader, 10) == list(range(10, 20))
        deafness.begin()
        await kafka.delete_topic(topic_name)
        await log.create(topic_name, 1)
        await log.publish(records(topic_name, range(100, 130)))
        deafness.end()

        with pytest.raises(LogMismatchError, match="created again while it was read"):
            await until(lambda: fetch_some(reader), "the reader says that the topic is another one")
        with pytest.raises(TransportError) as raised:  # how records are read that aiokafka cannot parse
            await log._control.fetch(partition, 20, 1_000, reader._topic_ids)
        assert type(raised.value.__cause__) is OffsetOutOfRangeError
        await reader.close()
        reader = await log.reader({partition: 20})
        assert await _read(reader, 10) == list(range(120, 130))
        await reader.close()


async def _read(reader: Reader, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found += values(await fetch_some(reader))
    return found
