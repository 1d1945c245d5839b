"""Reads Kafka partitions from positions that the caller names, as a consumer that belongs to no group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import ConsumerStoppedError, KafkaError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition as KafkaPartition

from headrace.errors import HeadraceError, TransportError
from headrace.log import kafka_lenient
from headrace.log.kafka_client import make_consumer
from headrace.log.kafka_closing import close_consumer
from headrace.log.kafka_connection import Options, translate
from headrace.log.kafka_control import KafkaControl
from headrace.log.kafka_linger import LingeringFetcher, let_linger
from headrace.log.kafka_records import read_batches
from headrace.log.kafka_topic_ids import fetch_by_id
from headrace.log.ports import Record, TopicPartition
from headrace.log.refusals import created_again, no_such_topic, out_of_range
from headrace.log.sizes import leading
from headrace.settings import KafkaSettings

LONG_POLL_SECONDS = 0.5


class KafkaReader:
    """One aiokafka consumer with `assign` and `seek`.

    After any error the caller closes it and opens another at its own positions, which disturbs no group. It is also an
    error if no broker answers within the request timeout: aiokafka itself would wait in silence.
    It reads the topics that had these names when it was opened: one that was created again since then is an error,
    whatever it holds (see kafka_topic_ids.py; brokers before Kafka 3.1 cannot tell).
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        positions: Mapping[TopicPartition, int],
        topic_ids: Mapping[str, str],
        control: KafkaControl,
        options: Options,
        settings: KafkaSettings,
    ) -> None:
        self._consumer = consumer
        self._positions = dict(positions)
        self._topic_ids = topic_ids
        self._surplus: dict[TopicPartition, list[Record]] = {}
        """What was read and did not fit into the last fetch; never an empty list."""
        self._ahead: dict[TopicPartition, int] = {}
        """The position behind the surplus."""
        self._partitions = {TopicPartition(*partition): KafkaPartition(*partition) for partition in positions}
        self._control = control
        self._options = options
        self._fetch_bytes = settings.fetch_bytes
        self._silence_seconds = settings.request_timeout_seconds + 2 * LONG_POLL_SECONDS
        self._heard: dict[TopicPartition, tuple[int | None, float]] = {}
        self._fetcher: LingeringFetcher | None = None
        self._read_at = time.monotonic()

    @classmethod
    async def open(
        cls, positions: Mapping[TopicPartition, int], control: KafkaControl, options: Options, settings: KafkaSettings
    ) -> KafkaReader:
        """Connect and seek. Raises: TransportError, ConfigurationError, LogMismatchError (no such topic)."""
        topics = sorted({topic for topic, _ in positions})
        found = await control.topics(topics)
        for topic in topics:
            if topic not in found:
                raise no_such_topic(topic)
        consumer = make_consumer(
            options,
            group_id=None,
            isolation_level="read_committed",  # aiokafka's default applies aborted transactions
            auto_offset_reset="none",  # a position out of range is an error, never moved in silence
            enable_auto_commit=False,
            max_partition_fetch_bytes=settings.fetch_bytes,
            fetch_max_wait_ms=round(LONG_POLL_SECONDS * 1000),
            client_rack=settings.client_rack,
        )
        topic_ids = {topic: info.topic_id for topic, info in found.items() if info.topic_id is not None}
        reader = cls(consumer, positions, topic_ids, control, options, settings)
        try:
            async with asyncio.timeout(settings.request_timeout_seconds):
                await consumer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await reader.close()
            raise translate(error, reader._brokers, options) from error
        except BaseException:
            await reader.close()
            raise
        read_batches(consumer)
        reader._fetcher = let_linger(consumer)
        fetch_by_id(reader._fetcher, topic_ids)
        consumer.assign(list(reader._partitions.values()))
        for partition, offset in positions.items():
            consumer.seek(reader._partitions[partition], offset)
        return reader

    async def fetch(
        self, max_records: int, max_bytes: int, timeout_seconds: float
    ) -> dict[TopicPartition, list[Record]]:
        """Return the next records of the partitions; see the port."""
        if not self._surplus:
            await self._read(max_records, timeout_seconds)
        return self._take(max_records, max_bytes)

    async def _read(self, max_records: int, timeout_seconds: float) -> None:
        """Move what the client has, or gets before the timeout, to the surplus."""
        busy_seconds = time.monotonic() - self._read_at
        try:
            fetched = await self._consumer.getmany(timeout_ms=round(timeout_seconds * 1000), max_records=max_records)
            self._read_at = time.monotonic()
            if fetched and self._fetcher is not None:
                self._fetcher.linger(busy_seconds)
            for partition, kafka_partition in self._partitions.items():
                # Past the last record and past what holds none: markers, aborted batches, compacted ends.
                self._ahead[partition] = await self._consumer.position(kafka_partition)
        except OffsetOutOfRangeError as error:
            raise await self._out_of_range() from error
        except UnicodeDecodeError:
            await self._read_leniently(max_records)
            return
        except (KafkaError, ConsumerStoppedError, OSError) as error:
            raise translate(error, self._brokers, self._options) from error
        if fetched:
            self._heard.clear()
        else:
            await self._check_silence()
        self._surplus = {TopicPartition(*partition): many for partition, many in fetched.items() if many}
        self._positions |= {p: offset for p, offset in self._ahead.items() if p not in self._surplus}

    def _take(self, max_records: int, max_bytes: int) -> dict[TopicPartition, list[Record]]:
        """Move what fits from the surplus to the caller."""
        found: dict[TopicPartition, list[Record]] = {}
        for partition, records in list(self._surplus.items()):
            count, size = leading(records, max_records, max_bytes)
            if not count or (found and size > max_bytes):
                break
            found[partition] = records[:count]
            max_records -= count
            max_bytes -= size
            if count == len(records):
                del self._surplus[partition]
                self._positions[partition] = self._ahead[partition]
            else:
                self._surplus[partition] = records[count:]
                self._positions[partition] = records[count].offset
        return found

    def position(self, partition: TopicPartition) -> int:
        """Return the offset that the next fetch starts at."""
        return self._positions[partition]

    async def close(self) -> None:
        """Disconnect. Never raises."""
        await close_consumer(self._consumer)

    @property
    def _brokers(self) -> str:
        return ",".join(self._options["bootstrap_servers"])

    async def _read_leniently(self, max_records: int) -> None:
        """Read again what getmany could not parse, from the positions before it; getmany continues behind it."""
        for partition, offset in self._positions.items():
            if max_records <= 0:
                break
            try:
                part = await self._control.fetch(partition, offset, self._fetch_bytes, self._topic_ids)
            except TransportError as error:
                if isinstance(error.__cause__, OffsetOutOfRangeError):
                    raise await self._out_of_range() from error
                raise
            records, self._ahead[partition] = kafka_lenient.read(partition, offset, part, max_records)
            if records:
                self._surplus[partition] = records
                max_records -= len(records)
            else:
                self._positions[partition] = self._ahead[partition]
        for partition, kafka_partition in self._partitions.items():
            self._consumer.seek(kafka_partition, self._ahead.get(partition, self._positions[partition]))

    async def _check_silence(self) -> None:
        """Raise when a partition's leader has not answered a fetch for too long, though we waited for it."""
        now = time.monotonic()
        for partition, kafka_partition in self._partitions.items():
            answered = self._consumer.last_poll_timestamp(kafka_partition)
            before, since = self._heard.get(partition, (None, now))
            if partition not in self._heard or answered != before:
                self._heard[partition] = (answered, now)
            elif now - since > self._silence_seconds:
                if partition.topic not in await self._control.topics([partition.topic]):
                    raise no_such_topic(partition.topic)
                raise TransportError(
                    f"Kafka at {self._brokers} (HEADRACE_LOG) sent nothing about {partition.topic}"
                    f"[{partition.partition}] for {now - since:.0f} s: is the partition's leader up?"
                )

    async def _out_of_range(self) -> HeadraceError:
        """Return why a broker has no such position, or no topic with such an id."""
        try:
            found = await self._control.topics(list(self._topic_ids))
            bounds = await self._control.bounds(list(self._positions))
        except HeadraceError as error:
            return error
        for topic, topic_id in self._topic_ids.items():
            if topic not in found or found[topic].topic_id != topic_id:
                return created_again(topic)
        for partition, held in bounds.items():
            if mismatch := out_of_range(partition, self._positions[partition], held):
                return mismatch
        return TransportError("a broker did not know a topic or a position, and does now: read again.")
