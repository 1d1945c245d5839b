"""One owner per partition: who lost the claim writes nothing, and a new owner knows what the old one knew."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import asyncpg
import pytest

from headrace.engine.claim import Claim, claim, enroll
from headrace.engine.worker import Phase
from headrace.errors import FencedError
from headrace.log.memory import MemoryLog
from headrace.log.ports import Bounds, TopicInfo, TopicPartition
from headrace.runtime import Runtime
from tests.support.obstacles import locked
from tests.support.platform import (
    fetch,
    has_pages,
    notebook,
    noted,
    pages,
    publish,
    record,
    running,
    sample,
    settings_for,
    until_settled,
    value,
)
from tests.support.waiting import until

INFO = TopicInfo("pages", 1, "log")
BACKED_UP = ("claim", "ledger", "state", "lane", "parked", "dead_letter")


@pytest.mark.parametrize("restored", [BACKED_UP, ("claim", "ledger", "state")])
async def test_claim_restored_from_a_backup_cannot_commit(
    database_url: str, topic_name: str, restored: tuple[str, ...]
) -> None:
    log = MemoryLog()
    async with running(notebook(settings_for(database_url, partitions=1), topic_name), log) as runtime:
        await publish(runtime, *(noted(topic_name, "a", number) for number in (1, 2, 3)))
        await until_settled(runtime, "notes")
        backup = await _back_up(runtime, restored)
        await publish(runtime, *(noted(topic_name, page, number) for page in "ab" for number in (4, 5, 6)))
        await until_settled(runtime, "notes")
        epoch = await value(runtime, "select epoch from headrace.claim")

        await _restore(runtime, backup)
        assert await pages(runtime) == {"a": [1, 2, 3]}
        assert await value(runtime, "select epoch from headrace.claim") == epoch  # the number alone would let it pass
        await publish(runtime, noted(topic_name, "a", 7), noted(topic_name, "b", 7))

        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2, 3, 4, 5, 6, 7], "b": [4, 5, 6, 7]}
        assert sample(runtime, "claim_fenced_total") == 1


async def test_owner_without_a_new_event_sees_that_its_claim_went_back(database_url: str, topic_name: str) -> None:
    async with running(notebook(settings_for(database_url, partitions=1), topic_name), MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
        backup = await _back_up(runtime, BACKED_UP)
        await publish(runtime, noted(topic_name, "a", 2), noted(topic_name, "b", 1))
        await until_settled(runtime, "notes")
        await _restore(runtime, backup)
        assert await pages(runtime) == {"a": [1]}
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2], "b": [1]}


async def test_retry_that_a_restore_took_back_fences_its_owner(database_url: str, topic_name: str) -> None:
    """The next offset is the same before and after a retry: the sequence tells that the event is parked again."""
    allowed = asyncio.Event()

    def wait_for_permission(event: Any) -> None:
        if event.number == 1 and not allowed.is_set():
            raise ValueError("not yet")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1000), topic_name, wait_for_permission)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: value(runtime, "select count(*) = 1 from headrace.lane"), "the event is parked")
        backup = await _back_up(runtime, BACKED_UP)
        allowed.set()
        await until_settled(runtime, "notes")
        await _restore(runtime, backup)
        await publish(runtime, noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}


async def test_idle_owner_sees_that_another_one_came_and_went(database_url: str, topic_name: str) -> None:
    """What that one has parked, or set a timer for, is not known to the first until it claims again."""
    async with running(notebook(settings_for(database_url, partitions=1), topic_name), MemoryLog()) as runtime:
        assert await value(runtime, "select epoch from headrace.claim") == 1
        await fetch(runtime, "update headrace.claim set epoch = 2, token = gen_random_uuid(), owner = null")
        await until(lambda: value(runtime, "select epoch = 3 from headrace.claim"), "the partition is claimed again")


async def test_first_of_two_owners_is_fenced(database_url: str, topic_name: str) -> None:
    """Nothing of the batch that it held is seen by anybody."""
    log, release, entered = MemoryLog(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def block(event: Any) -> None:
        if event.page == "slow" and not entered.is_set():
            loop.call_soon_threadsafe(entered.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30)
        if event.page == "broken":
            raise ValueError("always")

    first = notebook(settings_for(database_url, partitions=1, retry_attempts=1), topic_name, block)
    second = notebook(settings_for(database_url, partitions=1, retry_attempts=100), topic_name, block)
    async with running(first, log) as early:
        await publish(
            early,
            noted(topic_name, "slow", 1),
            noted(topic_name, "broken", 1),
            record(topic_name, "noted", {"page": "unreadable"}, key="unreadable"),
        )
        await entered.wait()
        async with running(second, log) as late:
            await until(lambda: _next_offset(late, 3), "the second owner has applied the batch")
            seen = await _everything(late)
            release.set()
            await until(lambda: sample(early, "claim_fenced_total") == 1, "the first owner is fenced")
            assert await pages(late) == {"slow": [1]}
            assert await value(late, "select count(*) from headrace.parked") == 1
            assert await value(late, "select count(*) from headrace.dead_letter") == 1
            assert (await _everything(late))["ledger"] >= seen["ledger"]
            assert await value(late, "select count(*) from headrace.ledger where kind = 0") == 1


@pytest.mark.parametrize("field", ["epoch", "token", "next_offset", "sequence"])
async def test_commit_is_refused_where_one_part_of_the_claim_differs(pool: asyncpg.Pool, field: str) -> None:
    changes = {
        "epoch": "epoch = epoch + 1",
        "token": "token = gen_random_uuid()",
        "next_offset": "next_offset = next_offset - 1",
        "sequence": "sequence = sequence - 1",
    }
    async with pool.acquire() as connection:
        held = await take(connection, TopicPartition("pages", 0), "me", 5)
        await held.guard(connection)
        await connection.execute(f"update headrace.claim set {changes[field]}")
        with pytest.raises(FencedError, match="notes: pages/0 was claimed by another owner"):
            await held.guard(connection)
        with pytest.raises(FencedError):
            await held.advance(connection, 6, 1, 1, None)
        assert await connection.fetchval("select sequence from headrace.claim") <= 0


async def test_unknown_outcome_is_not_guessed_after_a_takeover(pool: asyncpg.Pool) -> None:
    """The answer to a commit is missing: what did not arrive never does, and another owner may have taken over."""
    async with pool.acquire() as connection:
        held = await take(connection, TopicPartition("pages", 0), "me", 0)
        await held.advance(connection, 6, 1, 1, None)
        assert await held.was_committed(connection, 1)
        sent = copy.copy(held)
        assert not await held.was_committed(connection, 2)
        await held.check(connection)  # a lane that begins meanwhile
        held.renewed()
        with pytest.raises(FencedError):
            await sent.advance(connection, 7, 2, 2, None)  # it arrives after all
        await held.check(connection)
        await take(connection, TopicPartition("pages", 0), "you", 0)
        with pytest.raises(FencedError):
            await held.was_committed(connection, 1)


async def test_owners_take_turns_and_every_event_is_applied_once(database_url: str, topic_name: str) -> None:
    log = MemoryLog()
    settings = settings_for(database_url, batch_records=7)
    first, second = notebook(settings, topic_name), notebook(settings, topic_name)
    names = [f"page-{number}" for number in range(9)]
    async with running(first, log) as one, running(second, log) as two:
        for number in range(1, 51):  # each is fenced by the other, and claims back
            await publish(one, *(noted(topic_name, page, number) for page in names))
            await until(partial(has_pages, one, {names[0]: list(range(1, number + 1))}), "it is applied")
        await until_settled(one, "notes", seconds=60)
        assert await pages(one) == {page: list(range(1, 51)) for page in names}
        assert sample(one, "claim_fenced_total") + sample(two, "claim_fenced_total") > 0


async def test_claim_that_failed_halfway_is_not_taken_for_a_loaded_one(database_url: str, topic_name: str) -> None:
    log, broken = MemoryLog(), True

    def fail(event: Any) -> None:
        if broken:
            raise ValueError("not yet")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name, fail)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1, id="one"))
        await until(lambda: _next_offset(runtime, 1), "the first event is parked")
    async with locked(database_url, "headrace.lane") as connection:
        starting = asyncio.create_task(_restarted(platform, log, topic_name))
        await until(lambda: _kill_waiting(connection), "the new owner waits for the lanes, and loses its session")
        broken = False
    await starting


async def test_log_is_looked_at_again_when_another_owner_was_faster(database_url: str, topic_name: str) -> None:
    """The log's end was read before another owner applied events beyond it."""

    class LateLog(MemoryLog):
        """Answers the first question for its bounds when the other owner has gone beyond them."""

        async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
            found = await log.bounds(partitions)
            if found[partition].end == 1:
                await publish(early, noted(topic_name, "a", 2))
                await until_settled(early, "notes")
            return found

    log, partition, settings = MemoryLog(), TopicPartition(topic_name, 0), settings_for(database_url, partitions=1)
    async with running(notebook(settings, topic_name), log) as early:
        await publish(early, noted(topic_name, "a", 1))
        await until_settled(early, "notes")
        late = LateLog()
        late._log_id, late._topics, late._wakeups = log._log_id, log._topics, log._wakeups
        async with running(notebook(settings, topic_name), late) as runtime:  # fails if the partition is refused
            assert runtime.health.readiness() == (True, [])
            await publish(runtime, noted(topic_name, "a", 3))
            await until_settled(runtime, "notes")
            assert await pages(runtime) == {"a": [1, 2, 3]}


async def _restarted(platform: Any, log: MemoryLog, topic: str) -> None:
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic, "a", 1, id="one"), noted(topic, "a", 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}


async def test_owner_that_returns_knows_what_was_seen_meanwhile(database_url: str, topic_name: str) -> None:
    """A partition goes to another owner and comes back; the first one skips what the other one applied."""
    log = MemoryLog()
    async with running(notebook(settings_for(database_url, partitions=1), topic_name), log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1, id="one"))
        await until_settled(runtime, "notes")
        consumer = runtime.consumers["notes"]
        partition = TopicPartition(topic_name, 0)

        await consumer.lost([partition])
        await consumer.assigned([partition])
        await until(lambda: consumer.workers[0].phase is Phase.RUNNING, "the partition is back")
        await publish(runtime, noted(topic_name, "a", 1, id="one"), noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}
        assert await value(runtime, "select crashes from headrace.claim") == 0


async def take(connection: Any, source: TopicPartition, owner: str, first_offset: int) -> Claim:
    """Claim the partition of the subscription `notes`."""
    await enroll(connection, "notes", INFO, {source.partition: first_offset})
    return await claim(connection, "notes", source, owner, info=INFO, log_end=first_offset + 1, suspect_records=1)


async def _next_offset(runtime: Runtime, offset: int) -> bool:
    return bool(await value(runtime, "select max(next_offset) from headrace.claim") == offset)


async def _everything(runtime: Runtime) -> dict[str, int]:
    return {table: await value(runtime, f"select count(*) from headrace.{table}") for table in BACKED_UP}


async def _back_up(runtime: Runtime, tables: tuple[str, ...]) -> dict[str, list[Any]]:
    return {table: await fetch(runtime, f"select * from headrace.{table}") for table in tables}


async def _restore(runtime: Runtime, backup: dict[str, list[Any]]) -> None:
    """Write the rows back in one transaction, as if the database were an older copy of itself."""
    assert runtime.pool is not None
    async with runtime.pool.acquire() as connection, connection.transaction():
        for table, rows in backup.items():
            await connection.execute(f"delete from headrace.{table}")
            for row in rows:
                places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
                await connection.execute(f"insert into headrace.{table} values ({places})", *row.values())


async def _kill_waiting(connection: asyncpg.Connection) -> bool:
    """End the session that waits for the lock while it reads the lanes."""
    await connection.execute("select pg_stat_clear_snapshot()")  # or a transaction sees the same sessions for ever
    rows = await connection.fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
        "and wait_event_type = 'Lock' and query like '%from headrace.lane join headrace.parked%'"
    )
    return bool(rows)


async def test_a_small_pool_is_enough_for_many_partitions(database_url: str) -> None:
    """A claim holds no connection while the log is asked, which needs one of the same pool."""
    settings = settings_for(database_url, log="embedded", partitions=24, pool_size=3)
    async with running(notebook(settings, "many")) as runtime:
        await publish(runtime, *(noted("many", f"page-{number}", 1) for number in range(24)))
        await until_settled(runtime, "notes")
        assert len(await pages(runtime)) == 24
