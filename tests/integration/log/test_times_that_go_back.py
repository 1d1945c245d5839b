"""The place of a time is the first record of that time or later, also where a producer's clock went back."""

from __future__ import annotations

import time

import asyncpg
import pytest

from headrace.log.embedded import EmbeddedLog
from headrace.log.kafka import KafkaLog
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, TopicPartition
from headrace.settings import Settings
from tests.support.kafka import KafkaServer
from tests.support.producing import produce

NOW = int(time.time() * 1_000)
TIMES = [NOW - 9_000, NOW - 5_000, *[NOW - 8_000] * 20, NOW - 1_000]
"""Of one right record among those of a clock that goes wrong: to halve the log would not find it."""


@pytest.mark.parametrize(("at", "offset"), [(9_000, 0), (8_999, 1), (5_000, 1), (4_999, 22), (999, 23)])
async def test_kafka_finds_the_first_record(kafka: KafkaServer, topic_name: str, at: int, offset: int) -> None:
    await kafka.create_topic(topic_name, 1)
    for each in TIMES:
        await produce(kafka.bootstrap, [NewRecord(topic_name, b"a", b"{}", [])], partition=0, at=each)
    log = KafkaLog(Settings(log=kafka.url))
    await log.start()
    try:
        assert await log.offset_at(TopicPartition(topic_name, 0), NOW - at) == offset
    finally:
        await log.stop()


@pytest.mark.parametrize("kind", ["memory", "embedded"])
async def test_local_logs_find_the_same_record(pool: asyncpg.Pool, topic_name: str, kind: str) -> None:
    log = MemoryLog() if kind == "memory" else EmbeddedLog(pool)
    await log.start()
    try:
        await log.create(topic_name, 1)
        await log.publish([NewRecord(topic_name, b"a", b"{}", []) for _ in TIMES])
        if isinstance(log, MemoryLog):
            records = log._topics[topic_name][0]
            records[:] = [
                type(each)(each.topic, each.partition, each.offset, at, each.key, each.value, each.headers)
                for each, at in zip(records, TIMES, strict=True)
            ]
        else:
            query = 'update headrace.log_record set "timestamp" = $2 where topic = $1 and "offset" = $3'
            await pool.executemany(query, [(topic_name, at, offset) for offset, at in enumerate(TIMES)])
        place, ages = TopicPartition(topic_name, 0), (9_000, 8_999, 5_000, 4_999, 999)
        found = [await log.offset_at(place, NOW - age) for age in ages]
        assert found == [0, 1, 1, 22, 23]
    finally:
        await log.stop()
