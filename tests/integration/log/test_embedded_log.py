"""The embedded log on a real Postgres: one owner, one commit for many calls, and what a killed server leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from headrace.database.pool import open_pool
from headrace.errors import ConfigurationError, LogMismatchError, TransportError
from headrace.log import embedded
from headrace.log.embedded import EmbeddedLog
from headrace.log.embedded_session import LOCK
from headrace.log.ports import NewRecord, Position, Record, TopicPartition
from headrace.settings import Settings
from tests.integration.log.support import fetch_some, missing, records, values
from tests.support.postgres import PostgresServer
from tests.support.waiting import until


@pytest_asyncio.fixture
async def log(pool: asyncpg.Pool[Any]) -> AsyncIterator[EmbeddedLog]:
    opened = EmbeddedLog(pool)
    await opened.start()
    yield opened
    await opened.stop()


async def test_a_second_owner_is_refused_until_the_first_has_gone(log: EmbeddedLog, database_url: str) -> None:
    other_pool = await open_pool(Settings(), database_url)
    other = EmbeddedLog(other_pool)

    with pytest.raises(ConfigurationError, match="another process has the embedded log"):
        await other.start()
    await log.stop()
    await other.start()

    await other.create("t", 1)
    assert await other.publish(records("t", [1])) == [Position("t", 0, 0)]
    await other.stop()
    other_pool.terminate()


async def test_concurrent_calls_share_commits(log: EmbeddedLog, pool: asyncpg.Pool[Any], topic_name: str) -> None:
    await log.create(topic_name, 3)
    await log.publish(records(topic_name, [-1]))  # the first one asks which partitions there are

    await asyncio.gather(*(log.publish(records(topic_name, [n])) for n in range(500)))

    commits = await pool.fetch(
        "select count(*) as records from headrace.log_record where topic = $1 group by xmin::text", topic_name
    )
    assert sum(commit["records"] for commit in commits) == 501
    assert len(commits) <= 5


async def test_no_transaction_is_larger_than_postgres_takes(
    log: EmbeddedLog, pool: asyncpg.Pool[Any], topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message of Postgres holds 1 GB: calls that come together have more than that if their events are large."""
    monkeypatch.setattr(embedded, "TRANSACTION_BYTES", 10_000)
    await log.create(topic_name, 1)
    await log.publish(records(topic_name, [-1]))

    large = NewRecord(topic_name, b"key", bytes(4_000), [])
    await asyncio.gather(*(log.publish([large]) for _ in range(20)))

    commits = await pool.fetch(
        "select sum(octet_length(value)) as bytes from headrace.log_record where topic = $1 group by xmin::text",
        topic_name,
    )
    assert sum(commit["bytes"] for commit in commits) == 20 * 4_000 + 2
    assert max(commit["bytes"] for commit in commits) < 10_000 + 4_000


async def test_a_full_partition_starves_no_other(log: EmbeddedLog, topic_name: str) -> None:
    full, other = TopicPartition(f"{topic_name}-full", 0), TopicPartition(f"{topic_name}-other", 0)
    for topic, _ in (full, other):
        await log.create(topic, 1)
    await log.publish([*records(full.topic, range(50)), *records(other.topic, [50])])

    reader = await log.reader({full: 0, other: 0})
    fetched = [await reader.fetch(10, 2**20, 0.2) for _ in range(3)]
    await reader.close()

    assert [sum(len(each.get(partition, ())) for each in fetched) for partition in (full, other)] == [29, 1]


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(topic_name: str) -> None:
    server = PostgresServer()
    await server.start()
    try:
        async with server.database() as url:
            pool = await open_pool(Settings(), url)
            log = EmbeddedLog(pool)
            await log.start()
            await log.create(topic_name, 2)
            acknowledged: list[Position] = []
            failures: list[TransportError] = []
            is_over = asyncio.Event()

            async def is_published() -> bool:
                try:
                    acknowledged.extend(await log.publish(records(topic_name, range(10))))
                except TransportError as error:
                    failures.append(error)
                    return False
                return True

            async def publish() -> None:
                while not is_over.is_set():
                    await until(is_published, "ten records are acknowledged", 60)

            partitions = [TopicPartition(topic_name, 0), TopicPartition(topic_name, 1)]
            reader = await log.reader(dict.fromkeys(partitions, 0))
            found: list[Record] = []
            publishers = [asyncio.create_task(publish()) for _ in range(5)]

            for _ in range(2):
                before = len(acknowledged)
                await until(lambda before=before: len(acknowledged) > before + 500, "publishing is under way")  # type: ignore[misc]
                told = len(failures)
                await server.kill()
                await until(lambda told=told: len(failures) > told, "publishers are told")  # type: ignore[misc]
                await server.start()
            before = len(acknowledged)
            await until(lambda: len(acknowledged) > before + 500, "publishing continues")
            is_over.set()
            await asyncio.gather(*publishers)

            async def has_all() -> bool:
                found.extend(await fetch_some(reader))
                return not missing(acknowledged, found)

            await until(has_all, "all that was acknowledged is there")
            await log.stop()
            pool.terminate()
    finally:
        await server.stop()

    assert len(set(acknowledged)) == len(acknowledged)
    offsets = sorted(r.offset for r in found if r.partition == 0)
    assert offsets == list(range(len(offsets)))
    assert all("\n" not in str(failure) for failure in failures)


async def test_a_writer_that_lost_its_session_takes_the_lock_again(
    log: EmbeddedLog, pool: asyncpg.Pool[Any], topic_name: str
) -> None:
    await log.create(topic_name, 1)
    await log.publish(records(topic_name, [0]))
    reader = await log.reader({TopicPartition(topic_name, 0): 0})

    assert await _end_the_owner(pool)

    await until(lambda: _published(log, topic_name), "the writer has the lock again")
    found: list[Record] = []
    while len(found) < 2:
        found += await fetch_some(reader)
    assert values(found) == [0, 1]


async def test_a_writer_whose_lock_another_took_writes_nothing(
    log: EmbeddedLog, pool: asyncpg.Pool[Any], database_url: str, topic_name: str
) -> None:
    await log.create(topic_name, 1)
    thief = await asyncpg.connect(database_url)
    taking = asyncio.create_task(thief.execute("select pg_advisory_lock($1)", LOCK))
    await until(lambda: _is_waited_for(pool), "the thief waits for the lock")

    await _end_the_owner(pool)
    await taking

    async def is_refused() -> bool:
        with pytest.raises(TransportError) as caught:
            await log.publish(records(topic_name, [1]))
        return "another process" in str(caught.value)

    await until(is_refused, "the writer finds that another has the lock")
    assert await pool.fetchval("select count(*) from headrace.log_record") == 0
    await thief.close()
    await until(lambda: _published(log, topic_name), "the writer has the lock again")


async def test_a_position_that_was_deleted_is_refused(
    log: EmbeddedLog, pool: asyncpg.Pool[Any], topic_name: str
) -> None:
    await log.create(topic_name, 1)
    await log.publish(records(topic_name, range(10)))
    await pool.execute('delete from headrace.log_record where topic = $1 and "offset" < 4', topic_name)
    reader = await log.reader({TopicPartition(topic_name, 0): 2})

    with pytest.raises(LogMismatchError, match="begins at offset 4"):
        await fetch_some(reader)


async def test_publishing_before_the_start_is_an_error_and_not_a_wait(pool: asyncpg.Pool[Any], topic_name: str) -> None:
    log = EmbeddedLog(pool)
    await log.create(topic_name, 1)

    with pytest.raises(TransportError, match="not started"):
        await log.publish(records(topic_name, [1]))


async def test_publishers_are_told_when_the_log_stops_in_a_commit(
    pool: asyncpg.Pool[Any], topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.1)
    monkeypatch.setattr(embedded, "WAITING_CALLS", 2)
    log = EmbeddedLog(pool)
    await log.start()
    await log.create(topic_name, 1)
    async with pool.acquire() as holder, holder.transaction():
        await holder.execute("select from headrace.log_partition for update")
        publishing = [asyncio.create_task(log.publish(records(topic_name, [n]))) for n in range(10)]
        await until(lambda: _is_held_up(pool), "the writer waits for the row")

        await log.stop()

        async with asyncio.timeout(20):
            results = await asyncio.gather(*publishing, return_exceptions=True)
    assert all(isinstance(result, TransportError) for result in results)


async def _is_held_up(pool: asyncpg.Pool[Any]) -> bool:
    return bool(await pool.fetchval("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"))


async def _end_the_owner(pool: asyncpg.Pool[Any]) -> bool:
    return bool(
        await pool.fetchval(
            "select bool_or(pg_terminate_backend(pid)) from pg_locks join pg_database d on d.oid = database"
            " where locktype = 'advisory' and granted and datname = current_database()"
        )
    )


async def _is_waited_for(pool: asyncpg.Pool[Any]) -> bool:
    return bool(
        await pool.fetchval(
            "select count(*) from pg_locks join pg_database d on d.oid = database"
            " where locktype = 'advisory' and not granted and datname = current_database()"
        )
    )


async def _published(log: EmbeddedLog, topic: str) -> bool:
    try:
        return bool(await log.publish(records(topic, [1])))
    except TransportError:
        return False
