"""`headrace topics --accept` takes a topic as it is now: nothing is lost, and nothing is applied twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from headrace.engine.accept import accept_topic
from headrace.errors import ConfigurationError
from headrace.log.memory import MemoryLog
from headrace.log.ports import Bounds, NewRecord, TopicPartition
from headrace.topics import KnownTopic, known_topics
from tests.support.waiting import until

CLAIM = """
insert into headrace.claim (subscription, topic, partition, epoch, token, owner, claimed_offset, next_offset, log_id)
values ($1, 'things', $2, 4, gen_random_uuid(), 'me', 0, $3, $4)
"""


async def log_of(partitions: int, records: int) -> tuple[MemoryLog, str]:
    """Return a log with a topic that holds the records, all of one key, and the log's identity."""
    log = MemoryLog()
    await log.create("things", partitions)
    for _ in range(records):
        await log.publish([NewRecord("things", b"a", b"{}", [])])
    return log, (await log.topics(["things"]))["things"].log_id


async def rows(pool: asyncpg.Pool, columns: str) -> list[tuple[Any, ...]]:
    """Return these columns of the claims, in order."""
    found = await pool.fetch(f"select {columns} from headrace.claim order by subscription, partition")
    return [tuple(row) for row in found]


async def accept(pool: asyncpg.Pool, log: MemoryLog) -> list[str]:
    """Accept the topic."""
    async with pool.acquire() as connection:
        return await accept_topic(connection, log, "things", window_ids=1_000)


async def test_added_partition_begins_at_its_beginning_for_every_group(pool: asyncpg.Pool) -> None:
    log, log_id = await log_of(3, 0)
    for group in ("shop.mails", "shop.wallets"):
        for partition in (0, 1):
            await pool.execute(CLAIM, group, partition, 0, log_id)
    assert await accept(pool, log) == [
        "shop.mails: things/2 is new, begins at offset 0 and knows 0 event ids of partition 0",
        "shop.wallets: things/2 is new, begins at offset 0 and knows 0 event ids of partition 0",
    ]
    assert await rows(pool, "subscription, partition, next_offset, epoch, owner, log_id") == [
        (group, partition, 0, 5 if partition < 2 else 0, None, log_id)
        for group in ("shop.mails", "shop.wallets")
        for partition in range(3)
    ]
    async with pool.acquire() as connection:
        assert await known_topics(connection) == [KnownTopic("things", 3, log_id)]
    assert await accept(pool, log) == []


async def test_claim_of_another_log_moves_to_the_beginning(pool: asyncpg.Pool) -> None:
    log, log_id = await log_of(1, 5)
    await pool.execute(CLAIM, "shop.wallets", 0, 3, "memory:another")
    assert await accept(pool, log) == ["shop.wallets: things/0 continues at offset 0"]
    assert await rows(pool, "next_offset, epoch, owner, log_id") == [(0, 5, None, log_id)]


async def test_claim_that_the_log_continues_stays_where_it_is(pool: asyncpg.Pool) -> None:
    """Its owner has to claim again all the same: what it remembers may be of keys that have moved."""
    log, log_id = await log_of(1, 5)
    await pool.execute(CLAIM, "shop.wallets", 0, 3, log_id)
    assert await accept(pool, log) == []
    assert await rows(pool, "next_offset, epoch, owner, log_id") == [(3, 5, None, log_id)]


async def test_claim_beyond_the_end_of_the_log_is_moved(pool: asyncpg.Pool) -> None:
    log, log_id = await log_of(1, 5)
    await pool.execute(CLAIM, "shop.wallets", 0, 6, log_id)
    assert await accept(pool, log) == ["shop.wallets: things/0 continues at offset 0"]


async def test_claim_without_a_log_goes_by_what_the_topic_was(pool: asyncpg.Pool) -> None:
    """Claims that were made before they knew their log."""
    log, log_id = await log_of(1, 5)
    await pool.execute("insert into headrace.topic (topic, partitions, log_id) values ('things', 1, $1)", log_id)
    await pool.execute(CLAIM, "shop.wallets", 0, 3, None)
    assert await accept(pool, log) == []
    assert await rows(pool, "next_offset, log_id") == [(3, log_id)]


async def test_claims_of_partitions_that_are_gone_are_removed(pool: asyncpg.Pool) -> None:
    log, log_id = await log_of(1, 0)
    for partition in (0, 1, 2):
        await pool.execute(CLAIM, "shop.wallets", partition, 0, log_id)
    assert await accept(pool, log) == []
    assert await rows(pool, "partition") == [(0,)]


async def test_slow_log_does_not_end_the_transaction(pool: asyncpg.Pool) -> None:
    """The log is read while the claims are locked, for longer than a session may be silent elsewhere."""
    log, _ = await log_of(1, 5)
    await pool.execute(CLAIM, "shop.wallets", 0, 3, "memory:another")
    async with pool.acquire() as connection:
        await connection.execute("set idle_in_transaction_session_timeout = 50")

        class Slow(MemoryLog):
            async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
                if connection.is_in_transaction():
                    await until(lambda: _is_overdue(pool, connection.get_server_pid()), "it is silent for too long")
                return await log.bounds(partitions)

        slow = Slow()
        await slow.create("things", 1)
        assert await accept_topic(connection, slow, "things", window_ids=1_000) == [
            "shop.wallets: things/0 continues at offset 0"
        ]


async def _is_overdue(pool: asyncpg.Pool, pid: int) -> bool:
    """True if a session has been silent within its transaction for a while, or is gone."""
    row = await pool.fetchrow(
        "select clock_timestamp() - state_change > interval '200 ms' as is_overdue from pg_stat_activity "
        "where pid = $1 and state = 'idle in transaction'",
        pid,
    )
    is_there = await pool.fetchval("select count(*) from pg_stat_activity where pid = $1", pid)
    return row["is_overdue"] if row is not None else not is_there


async def test_topic_that_does_not_exist_is_refused(pool: asyncpg.Pool) -> None:
    with pytest.raises(ConfigurationError, match="'things' does not exist in HEADRACE_LOG"):
        await accept(pool, MemoryLog())


async def test_claims_tell_what_a_topic_was_before_the_table_does(pool: asyncpg.Pool) -> None:
    await pool.execute(
        "insert into headrace.topic (topic, partitions, log_id) values ('things', 9, 'old'), ('b', 1, 'b')"
    )
    for partition in (0, 1):
        await pool.execute(CLAIM, "shop.wallets", partition, 0, "new" if partition else None)
    async with pool.acquire() as connection:
        assert await known_topics(connection) == [KnownTopic("b", 1, "b"), KnownTopic("things", 2, "new")]
        assert await known_topics(connection, ["things"]) == [KnownTopic("things", 2, "new")]
