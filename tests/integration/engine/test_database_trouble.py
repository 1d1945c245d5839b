"""Postgres fails under a batch: nothing is lost, nothing is doubled, and no event is blamed for it."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from headrace.ledger.dead_letters import Replay
from headrace.log.memory import MemoryLog
from headrace.log.stored import stored_record
from headrace.runtime import Runtime
from tests.support.obstacles import is_waiting_for_a_lock
from tests.support.platform import (
    execute,
    fetch,
    has_pages,
    notebook,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    spread,
    until_settled,
    value,
)
from tests.support.postgres import PostgresServer
from tests.support.postgres_proxy import PostgresProxy
from tests.support.services import GOOD_PAGES
from tests.support.waiting import until

BEHIND = 200
"""How many events the engine has before it while its sessions are killed."""
MANY = range(2, 6)
"""So many events for each page that their batch is not committed with others, which would not wait for a lock."""


@pytest.mark.parametrize("events", [2, 100], ids=["committed with others", "in its own transaction"])
@pytest.mark.parametrize("resolved", ["committed", "rolled_back"])
async def test_batch_whose_commit_is_in_doubt_is_applied_once(
    database_url: str, topic_name: str, events: int, resolved: str
) -> None:
    """The commit arrived and its answer was lost, or it never arrived."""
    names = [f"page-{number}" for number in range(events)]
    async with PostgresProxy(database_url) as proxy:
        platform = notebook(settings_for(proxy.url, partitions=1), topic_name)
        async with running(platform, MemoryLog()) as runtime:
            await publish(runtime, *(noted(topic_name, name, 1) for name in names))
            await until_settled(runtime, "notes")
            proxy.drop_answer_to_commit() if resolved == "committed" else proxy.drop_commit()
            await publish(runtime, *(noted(topic_name, name, 2) for name in names))
            await until(lambda: sample(runtime, "db_commit_unknown_total"), "the claim told")
            assert sample(runtime, "db_commit_unknown_total", resolved=resolved) == 1
            await publish(runtime, *(noted(topic_name, name, 3) for name in names))
            await until_settled(runtime, "notes")
            assert await pages(runtime) == {name: [1, 2, 3] for name in names}
            assert proxy.cuts == 1


async def test_sessions_that_are_killed_lose_and_double_nothing(database_url: str, topic_name: str) -> None:
    """They are killed again and again while batches are applied."""
    platform = notebook(settings_for(database_url, batch_records=50), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        killing = asyncio.create_task(_kill_sessions(database_url, until_killed=25))
        number = 0
        while not killing.done():
            number += 1
            await publish(runtime, *(noted(topic_name, page, number) for page in GOOD_PAGES))
            sent = number * len(GOOD_PAGES)
            await until(lambda sent=sent: _applied(runtime) > sent - BEHIND, "the engine keeps up, nearly")  # type: ignore[misc]
        await killing
        await until_settled(runtime, "notes", seconds=60)
        assert await pages(runtime) == {page: list(range(1, number + 1)) for page in GOOD_PAGES}
        assert sample(runtime, "events_parked_total") == 0
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0
        assert sample(runtime, "batch_reruns_total", cause="infrastructure") > 0, "no session was killed at work"


async def test_deadlock_with_foreign_sql_is_blamed_on_nobody(
    database_url: str, topic_name: str, postgres: PostgresServer
) -> None:
    """The batch is tried again, and no event is parked."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    # The superuser's address, since others may not choose the victim.
    connection = await asyncpg.connect(postgres.of_superuser(database_url))
    try:
        async with running(platform, MemoryLog()) as runtime:
            await publish(runtime, *spread(topic_name, GOOD_PAGES, 1))
            await until_settled(runtime, "notes")
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("set local deadlock_timeout = '10min'")  # so that the engine is the victim
            await connection.execute("select from headrace.claim for update")
            await publish(runtime, *(noted(topic_name, page, number) for number in MANY for page in GOOD_PAGES))
            await until(lambda: is_waiting_for_a_lock(runtime), "the batch waits for the claim")
            await connection.execute("update headrace.state set version = version")
            await transaction.rollback()
            await until_settled(runtime, "notes")
            assert await pages(runtime) == {page: [1, *MANY] for page in GOOD_PAGES}
            assert sample(runtime, "db_errors_total", kind="deadlock") > 0
            assert sample(runtime, "events_parked_total") == 0
    finally:
        await connection.close()


@pytest.mark.parametrize("lost", ["answer", "commit"])
async def test_replay_whose_commit_is_in_doubt_is_applied_once(database_url: str, topic_name: str, lost: str) -> None:
    is_broken = True

    def fail(event: Any) -> None:
        if is_broken:
            raise ValueError("not yet")

    async with PostgresProxy(database_url) as proxy:
        platform = notebook(settings_for(proxy.url, partitions=1, retry_attempts=2), topic_name, fail)
        async with running(platform, MemoryLog()) as runtime:
            await publish(runtime, noted(topic_name, "a", 1))
            await until(lambda: value(runtime, "select count(*) from headrace.dead_letter"), "it was given up on")
            await until_settled(runtime, "notes")
            is_broken = False
            (row,) = await fetch(runtime, "select * from headrace.dead_letter")
            worker = runtime.consumers["notes"].workers[0]
            await execute(database_url, "update headrace.dead_letter set decision = 'replay', decided_at = now()")
            proxy.drop_answer_to_commit() if lost == "answer" else proxy.drop_commit()
            worker.orders.replays = [Replay(row["id"], row["reason"], stored_record(row, 0))]
            await until(lambda: proxy.cuts == 1, "the connection was cut in a COMMIT")
            await until(lambda: has_pages(runtime, {"a": [1]}), "it is applied")
            worker.orders.replays = [Replay(row["id"], row["reason"], stored_record(row, 0))]
            await until(lambda: not worker.orders.replays, "the worker took it up again")
            await publish(runtime, noted(topic_name, "a", 2))
            await until_settled(runtime, "notes")
            assert await pages(runtime) == {"a": [1, 2]}


def _applied(runtime: Runtime) -> float:
    return sample(runtime, "events_applied_total")


async def _kill_sessions(database_url: str, until_killed: int) -> None:
    connection = await asyncpg.connect(database_url)
    killed = 0

    async def are_killed() -> bool:
        nonlocal killed
        killed += len(
            await connection.fetch(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and application_name = 'headrace' and state <> 'idle'"
            )
        )
        return killed >= until_killed

    try:
        await until(are_killed, f"{until_killed} sessions were killed at work")
    finally:
        await connection.close()
