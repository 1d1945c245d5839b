"""What the tests of the logs on real servers share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import confluent_kafka
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from headrace.log.kafka import KafkaLog
from headrace.log.ports import NewRecord, Position, Reader, Record, TopicPartition
from headrace.settings import DatabaseSettings, EngineSettings, KafkaSettings, Settings
from headrace.testing.conformance.log_suite import Seat
from tests.support.waiting import until

MANY_BYTES = 2**30


@asynccontextmanager
async def kafka_log(url: str, **options: Any) -> AsyncIterator[KafkaLog]:
    """Yield a started log; `options` are those of HEADRACE_KAFKA_."""
    log = KafkaLog(settings_for(url, **options))
    try:
        await log.start()
        yield log
    finally:
        await log.stop()


def settings_for(url: str, **options: Any) -> Settings:
    """Return settings with this log and these options of HEADRACE_KAFKA_."""
    database = DatabaseSettings(idle_in_transaction_seconds=3)  # below any session timeout that a test asks for
    kafka = KafkaSettings(**options)
    engine = EngineSettings(batch_seconds=min(30.0, kafka.max_poll_seconds / 2))
    return Settings(log=url, kafka=kafka, engine=engine, database_options=database)


def records(topic: str, numbers: Iterable[int]) -> list[NewRecord]:
    """Return records whose values are the numbers, with ten keys."""
    return [NewRecord(topic=topic, key=b"k%d" % (n % 10), value=b"%d" % n, headers=[]) for n in numbers]


async def fetch_some(reader: Reader) -> list[Record]:
    """Return what one fetch brings."""
    return [record for many in (await reader.fetch(1_000, MANY_BYTES, 0.2)).values() for record in many]


def values(found: Iterable[Record]) -> list[int]:
    """Return the numbers in the records' values."""
    return [int(record.value or b"-1") for record in found]


def foreign_producer(bootstrap: str, **options: str | int) -> confluent_kafka.Producer:
    """Return a producer of librdkafka: a client that is not ours."""
    return confluent_kafka.Producer({"bootstrap.servers": bootstrap, "log_level": 0, **options})


class RawName(str):
    """A header name whose bytes on the wire are not UTF-8; no client library sends such a one on purpose."""

    __slots__ = ("raw",)

    def __new__(cls, raw: bytes) -> RawName:
        name = super().__new__(cls, repr(raw))
        name.raw = raw  # type: ignore[attr-defined]
        return name

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self.raw  # type: ignore[attr-defined,no-any-return]


async def produce_raw(
    bootstrap: str, topic: str, batch: Sequence[tuple[bytes, Mapping[str, bytes]]], codec: int = 0
) -> None:
    """Send one record batch to partition 0, built here byte by byte: (value, headers) of each record."""
    builder = _DefaultRecordBatchBuilderPy(
        magic=2,
        compression_type=codec,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1_000_000,
    )
    for number, (value, headers) in enumerate(batch):
        builder.append(number, None, b"key", value, list(headers.items()))
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        await client.add_topic(topic)
        request = ProduceRequest(
            transactional_id=None, required_acks=-1, timeout=10_000, topics=[(topic, [(0, builder.build())])]
        )
        response = await client.send(client.cluster.leader_for_partition(_partition(topic)), request)
        ((_, ((_, error, *_),)),) = response.topics
        assert error == 0, f"the broker refused the batch: error {error}"
    finally:
        await client.close()


def _partition(topic: str) -> Any:
    from aiokafka.structs import TopicPartition

    return TopicPartition(topic, 0)


def missing(acknowledged: Iterable[Position], found: Iterable[Record]) -> set[Position]:
    """Return the acknowledged positions at which nothing was read."""
    return set(acknowledged) - {Position(r.topic, r.partition, r.offset) for r in found}


async def write_read_and_join(log: KafkaLog, topic: str) -> None:
    """Do all that needs a connection which Kafka lets in: create the topic, write a record, read it, join a group."""
    await log.create(topic, 1)
    await log.publish(records(topic, [7]))
    reader = await log.reader({TopicPartition(topic, 0): 0})
    seat = Seat(log, topic, [topic])
    await seat.start()
    await until(lambda: fetch_some(reader), "the record is read")
    await seat.owns(bool)
    await seat.stop()
    await reader.close()
