"""What Kafka keeps for a group: the mutants that trust it ask here, in the processes of the crash machine."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place

from headrace.log.ports import TopicPartition

SECONDS = 10


def committed(log: str, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the group's offset of each partition; the beginning where there is none."""
    settings = {"bootstrap.servers": log.removeprefix("kafka://"), "group.id": group, "log_level": 0}
    consumer = Consumer(settings)
    try:
        found = consumer.committed([Place(*partition) for partition in partitions], timeout=SECONDS)
    finally:
        consumer.close()
    return {partition: max(0, place.offset) for partition, place in zip(partitions, found, strict=True)}
