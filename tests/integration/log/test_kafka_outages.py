"""A Kafka that is away, hangs, or comes back: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from headrace.errors import HeadraceError, TransportError
from headrace.log.kafka import KafkaLog
from headrace.log.ports import Position, Record, TopicPartition
from headrace.testing.conformance.log_suite import Seat
from tests.integration.log.support import fetch_some, kafka_log, missing, records, settings_for, values
from tests.support.kafka import KafkaServer
from tests.support.waiting import until

IMPATIENT: dict[str, Any] = {"request_timeout_seconds": 2, "session_timeout_seconds": 6, "heartbeat_seconds": 0.5}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker() -> AsyncIterator[KafkaServer]:
    """A broker that these tests may kill."""
    server = KafkaServer()
    try:
        yield server
    finally:
        await server.stop()


@pytest_asyncio.fixture
async def own_kafka(broker: KafkaServer) -> KafkaServer:
    """The broker, which runs, whatever the test before did to it."""
    if broker.pid is None:
        await broker.start()
    return broker


async def test_nothing_acknowledged_is_lost_when_a_broker_is_killed(own_kafka: KafkaServer, topic_name: str) -> None:
    """It is started again, and publishing continues."""
    async with kafka_log(own_kafka.url, **IMPATIENT) as log:
        await log.create(topic_name, 3)
        partitions = [TopicPartition(topic_name, number) for number in range(3)]
        acknowledged: dict[Position, int] = {}
        failures: list[HeadraceError] = []
        is_over = asyncio.Event()

        async def is_published(numbers: list[int]) -> bool:
            try:
                positions = await log.publish(records(topic_name, numbers))
            except TransportError as error:
                failures.append(error)
                return False
            acknowledged.update(zip(positions, numbers, strict=True))
            return True

        async def publish(start: int) -> None:
            number = start
            while not is_over.is_set():
                await until(partial(is_published, [number, number + 1]), "two records are acknowledged", 60)
                number += 2

        publishers = [asyncio.create_task(publish(1_000_000 * n)) for n in range(5)]
        await until(lambda: len(acknowledged) > 500, "publishing is under way")

        await own_kafka.kill()
        await until(lambda: len(failures) > 5, "publishers are told")
        before = len(acknowledged)
        await own_kafka.start()

        await until(lambda: len(acknowledged) > before + 500, "publishing continues")
        is_over.set()
        await asyncio.gather(*publishers)
        reader = await log.reader(dict.fromkeys(partitions, 0))
        found: list[Record] = []

        async def has_all() -> bool:
            found.extend(await fetch_some(reader))
            return not missing(acknowledged, found)

        await until(has_all, "all that was acknowledged is there")
        await reader.close()

    stored = {Position(r.topic, r.partition, r.offset): int(r.value or b"-1") for r in found}
    assert {position: stored[position] for position in acknowledged} == acknowledged
    assert all("HEADRACE_LOG" in str(failure) and "\n" not in str(failure) for failure in failures)


async def test_a_reader_tells_of_an_outage_and_another_continues(own_kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(own_kafka.url, **IMPATIENT) as log:
        await log.create(topic_name, 1)
        partition = TopicPartition(topic_name, 0)
        await log.publish(records(topic_name, range(10)))
        reader = await log.reader({partition: 0})
        found: list[Record] = []
        while len(found) < 10:
            found += await fetch_some(reader)
        await own_kafka.kill()

        with pytest.raises(TransportError, match="HEADRACE_LOG"):
            await until(lambda: fetch_some(reader), "the reader says that nothing answers")
        position = reader.position(partition)
        await reader.close()
        with pytest.raises(TransportError, match="HEADRACE_LOG"):
            await log.reader({partition: position})

        await own_kafka.start()
        await log.publish(records(topic_name, [10]))
        reader = await log.reader({partition: position})
        while len(found) < 11:
            found += await fetch_some(reader)
        await reader.close()

    assert values(found) == list(range(11))


async def test_a_reader_lives_through_a_short_outage(own_kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(own_kafka.url) as log:
        await log.create(topic_name, 1)
        reader = await log.reader({TopicPartition(topic_name, 0): 0})
        assert await fetch_some(reader) == []

        await own_kafka.restart()
        await until(lambda: _published(log, topic_name), "the publisher is back")

        await until(lambda: fetch_some(reader), "the reader is back")
        await reader.close()


async def test_a_member_gets_its_partitions_back_after_an_outage(own_kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(own_kafka.url, **IMPATIENT) as log:
        await log.create(topic_name, 4)
        seat = Seat(log, topic_name, [topic_name])
        await seat.start()
        await seat.owns(lambda owned: len(owned) == 4)

        await own_kafka.restart()

        other = Seat(log, topic_name, [topic_name])
        await other.start()
        await other.owns(lambda owned: len(owned) == 2)
        await seat.owns(lambda owned: len(owned) == 2)
        assert not seat.owned & other.owned
        await seat.stop()
        await other.owns(lambda owned: len(owned) == 4)
        await other.stop()


async def test_a_member_joins_once_the_broker_is_there(own_kafka: KafkaServer, topic_name: str) -> None:
    log = KafkaLog(settings_for(own_kafka.url, **IMPATIENT))
    await own_kafka.create_topic(topic_name, 2)
    await own_kafka.kill()
    seat = Seat(log, topic_name, [topic_name])

    await seat.start()
    assert not seat.membership.is_joined
    await own_kafka.start()

    await seat.owns(lambda owned: len(owned) == 2)
    await seat.stop()
    await log.stop()


async def test_a_broker_that_hangs_fails_a_publish_in_time(own_kafka: KafkaServer, topic_name: str) -> None:
    """Publishing works again afterwards."""
    async with kafka_log(own_kafka.url, **IMPATIENT) as log:
        await log.create(topic_name, 2)
        await log.publish(records(topic_name, [1]))

        own_kafka.pause()
        results = await asyncio.gather(
            *(log.publish(records(topic_name, [n])) for n in range(20)), return_exceptions=True
        )
        own_kafka.resume()

        assert all(isinstance(result, TransportError) for result in results)
        await until(lambda: _published(log, topic_name), "publishing works again")


async def _published(log: KafkaLog, topic: str) -> bool:
    try:
        return bool(await log.publish(records(topic, [1])))
    except TransportError:
        return False
