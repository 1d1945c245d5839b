"""Lag as an outsider sees it: librdkafka's end offsets against the claims in Postgres."""

from __future__ import annotations

import asyncio

import asyncpg
from confluent_kafka import Consumer, TopicPartition


async def lag(bootstrap: str, pool: asyncpg.Pool, subscription: str, partitions: int, topic: str | None = None) -> int:
    """Return how many records of the topic (default: named like the subscription) are not behind a claim."""
    topic = topic or subscription.partition(".")[2]
    ends = await asyncio.to_thread(_ends, bootstrap, topic, partitions)
    rows = await pool.fetch(
        "select partition, next_offset from headrace.claim where subscription = $1 and topic = $2", subscription, topic
    )
    claimed = {row["partition"]: row["next_offset"] for row in rows}
    return sum(end - claimed.get(partition, 0) for partition, end in ends.items())


def _ends(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "lag-of-a-test"})
    try:
        asked = [TopicPartition(topic, number) for number in range(partitions)]
        return {each.partition: consumer.get_watermark_offsets(each, timeout=10)[1] for each in asked}
    finally:
        consumer.close()
