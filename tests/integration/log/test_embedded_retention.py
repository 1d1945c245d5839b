"""What is old leaves the embedded log, unless somebody has yet to read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from headrace.log import embedded_retention
from headrace.log.embedded import EmbeddedLog
from headrace.log.embedded_retention import cut_off
from headrace.log.ports import Bounds, TopicPartition
from tests.integration.log.support import fetch_some, records, values
from tests.support.platform import fetch, notebook, noted, pages, publish, running, settings_for, until_settled, value
from tests.support.waiting import until

CLAIM = """
insert into headrace.claim (subscription, topic, partition, epoch, token, claimed_offset, next_offset)
values ($1, $2, 0, 1, gen_random_uuid(), 0, $3)
"""
FAR_FUTURE_MS = 2**52


@pytest_asyncio.fixture
async def log(pool: asyncpg.Pool[Any], topic_name: str) -> AsyncIterator[EmbeddedLog]:
    """A log whose topic has one partition with ten records."""
    opened = EmbeddedLog(pool)
    await opened.start()
    await opened.create(topic_name, 1)
    await opened.publish(records(topic_name, range(10)))
    yield opened
    await opened.stop()


async def test_old_records_are_deleted_in_pieces(
    log: EmbeddedLog, pool: asyncpg.Pool[Any], topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_retention, "PIECE_RECORDS", 3)
    partition = TopicPartition(topic_name, 0)
    await _age(pool, topic_name, through=6)

    assert await cut_off(pool, {}, before_ms=1_000) == 7

    assert await log.bounds([partition]) == {partition: Bounds(7, 10, 10)}
    reader = await log.reader({partition: 7})
    assert values(await fetch_some(reader)) == [7, 8, 9]
    assert await cut_off(pool, {}, before_ms=1_000) == 0


async def test_partition_without_a_record_goes_on_counting(
    log: EmbeddedLog, pool: asyncpg.Pool[Any], topic_name: str
) -> None:
    partition = TopicPartition(topic_name, 0)
    assert await cut_off(pool, {}, FAR_FUTURE_MS) == 10
    assert await log.bounds([partition]) == {partition: Bounds(10, 10, 10)}
    (position,) = await log.publish(records(topic_name, [10]))
    assert position.offset == 10


async def test_the_slowest_claim_keeps_the_record_before_it(
    log: EmbeddedLog, pool: asyncpg.Pool[Any], topic_name: str
) -> None:
    await pool.execute(CLAIM, "fast", topic_name, 10)
    await pool.execute(CLAIM, "slow", topic_name, 4)

    assert await cut_off(pool, {topic_name: ["fast", "slow"]}, FAR_FUTURE_MS) == 3

    partition = TopicPartition(topic_name, 0)
    assert await log.bounds([partition]) == {partition: Bounds(3, 10, 10)}


async def test_subscription_that_has_not_begun_keeps_everything(
    log: EmbeddedLog, pool: asyncpg.Pool[Any], topic_name: str
) -> None:
    await pool.execute(CLAIM, "fast", topic_name, 10)
    assert await cut_off(pool, {topic_name: ["fast", "new"]}, FAR_FUTURE_MS) == 0


async def test_what_is_cut_off_has_no_hole_where_the_clock_went_back(
    log: EmbeddedLog, pool: asyncpg.Pool[Any], topic_name: str
) -> None:
    await _age(pool, topic_name, through=6)
    await pool.execute('update headrace.log_record set "timestamp" = 5000 where "offset" = 2')
    assert await cut_off(pool, {}, before_ms=1_000) == 2


async def test_platform_cuts_its_log_at_start_and_goes_on(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, "embedded", partitions=1), topic_name)
    async with running(platform) as runtime:
        await publish(runtime, *(noted(topic_name, "a", number) for number in range(5)))
        await until_settled(runtime, "notes")
        await fetch(runtime, 'update headrace.log_record set "timestamp" = 0 where "offset" < 4')
    async with running(platform) as runtime:
        count = "select count(*) from headrace.log_record"
        await until(lambda: _equals(value(runtime, count), 1), "the old records are gone")
        await publish(runtime, noted(topic_name, "a", 5))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [0, 1, 2, 3, 4, 5]}


async def _equals(asked: Any, expected: object) -> bool:
    return bool(await asked == expected)


async def _age(pool: asyncpg.Pool[Any], topic: str, *, through: int) -> None:
    await pool.execute(
        'update headrace.log_record set "timestamp" = 0 where topic = $1 and "offset" <= $2', topic, through
    )
