"""The Kafka log: one idempotent publisher, a reader per partition number, a membership per subscription."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.log.kafka_connection import client_options, quiet_client_logs
from headrace.log.kafka_control import KafkaControl
from headrace.log.kafka_membership import KafkaMembership
from headrace.log.kafka_publisher import KafkaPublisher
from headrace.log.kafka_reader import KafkaReader
from headrace.log.ports import AssignmentListener, Bounds, NewRecord, Position, TopicInfo, TopicPartition
from headrace.settings import Settings


class KafkaLog:
    """Keeps records in the topics of a Kafka cluster, 2.1 or later.

    A log whose start() failed, or whose cluster went away, is usable as soon as the cluster is back.
    Raises when made: ConfigurationError (password or TLS files).
    """

    system = "kafka"

    def __init__(self, settings: Settings) -> None:
        quiet_client_logs()
        self._kafka = settings.kafka
        self._options = client_options(settings.kafka_brokers, self._kafka)
        self._control = KafkaControl(self._options, self._kafka.request_timeout_seconds, self._kafka.replication_factor)
        self._publisher = KafkaPublisher(self._control, self._options, self._kafka)

    async def start(self) -> None:
        """Connect. Raises: TransportError (away), ConfigurationError (log-in or TLS refused)."""
        await self._publisher.start()

    async def stop(self) -> None:
        """Send what is open and disconnect. Never raises."""
        await self._publisher.stop()
        await self._control.stop()

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append the records; return once all in-sync replicas have them."""
        return await self._publisher.publish(records)

    async def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """Return what exists of the named topics."""
        return await self._control.topics(names)

    async def create(self, topic: str, partitions: int) -> None:
        """Create the topic with HEADRACE_KAFKA_REPLICATION_FACTOR replicas."""
        await self._control.create(topic, partitions)

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Return the first offset, the last stable offset and the high watermark of each partition."""
        return await self._control.bounds(partitions)

    async def offset_at(self, partition: TopicPartition, milliseconds: int) -> int:
        """Return the offset of the first record of this time or later, as Kafka's index of times has it."""
        return await self._control.offset_at(partition, milliseconds)

    async def reader(self, positions: Mapping[TopicPartition, int]) -> KafkaReader:
        """Return a reader with connections of its own."""
        return await KafkaReader.open(positions, self._control, self._options, self._kafka)

    def membership(
        self, group: str, topics: Sequence[str], listener: AssignmentListener, identity: str
    ) -> KafkaMembership:
        """Return a seat in the consumer group."""
        return KafkaMembership(group, topics, listener, identity, self._control, self._options, self._kafka)
