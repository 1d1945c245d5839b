"""Subscriptions are paused and resumed over HTTP, and a paused one applies nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from headrace import Headrace
from headrace.database.pool import session_settings
from headrace.database.session import Session
from headrace.engine.worker import Phase
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from tests.support.obstacles import let_pass, locked
from tests.support.platform import (
    client,
    notebook,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    until_settled,
    value,
)
from tests.support.waiting import until


async def test_paused_subscription_applies_nothing_until_it_is_resumed(database_url: str, topic_name: str) -> None:
    log = MemoryLog()
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, log) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
        assert (await http.post("/subscriptions/notes/pause")).json() == {"name": "notes", "paused": True}
        await until(lambda: sample(runtime, "subscription_paused") == 1, "the engine knows")
        await publish(runtime, noted(topic_name, "a", 2))
        await until(lambda: sample(runtime, "lag_records") == 1, "the engine has looked at the log")
        assert await pages(runtime) == {"a": [1]}
        shown = (await http.get("/subscriptions/notes")).json()
        assert (shown["paused"], shown["lag"]) == (True, 1)
    async with running(platform, log) as runtime, client(platform) as http:
        await until(lambda: sample(runtime, "subscription_paused") == 1, "a new process knows, too")
        assert await pages(runtime) == {"a": [1]}
        await http.post("/subscriptions/notes/resume")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}


async def test_pause_stops_the_retries_of_parked_events_too(database_url: str, topic_name: str) -> None:
    runs, broken = 0, True

    def fail(event: Any) -> None:
        nonlocal runs
        runs += 1
        if broken:
            raise ValueError("not yet")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name, fail)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: runs > 3, "it was tried again")
        await http.post("/subscriptions/notes/pause")
        await until(lambda: runtime.consumers["notes"].workers[0].orders.is_paused, "the worker knows")
        await let_pass(seconds=1.0)  # a run that has begun is finished
        attempts = await value(runtime, "select attempts from headrace.lane")
        broken = False
        await publish(runtime, noted(topic_name, "a", 2))
        await until(lambda: sample(runtime, "lag_records") == 1, "the engine has looked at the log")
        assert await value(runtime, "select attempts from headrace.lane") <= attempts + 1
        assert await pages(runtime) == {}
        await http.post("/subscriptions/notes/resume")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}


async def test_paused_subscription_does_not_begin_by_running(
    database_url: str, topic_name: str, pool: asyncpg.Pool
) -> None:
    """What is asked of the subscription cannot be read for a while, and nothing runs before it was."""
    await pool.execute("insert into headrace.subscription (subscription, paused) values ('notebook.notes', true)")
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1), topic_name)
    await log.create(topic_name, 1)
    await log.publish([noted(topic_name, "a", 1)])
    options = session_settings(platform.settings.database_options) | {"lock_timeout": "100"}
    impatient = await asyncpg.create_pool(database_url, min_size=1, connection_class=Session, server_settings=options)
    async with locked(database_url, "headrace.subscription"):
        starting = asyncio.create_task(_paused_then_resumed(platform, log, impatient, pool))
        await until(lambda: platform.runtime is not None and _is_running(platform.runtime), "the partition is claimed")
        await let_pass(seconds=0.8)
        assert await pool.fetchval("select count(*) from headrace.ledger") == 0
    await starting


async def _paused_then_resumed(platform: Headrace, log: MemoryLog, own: asyncpg.Pool, pool: asyncpg.Pool) -> None:
    async with running(platform, log, own) as runtime:
        await until(lambda: sample(runtime, "subscription_paused") == 1, "it was read that the subscription is paused")
        assert await pages(runtime) == {}
        await pool.execute("update headrace.subscription set paused = false")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


def _is_running(runtime: Runtime) -> bool:
    workers = runtime.consumers["notes"].workers if "notes" in runtime.consumers else {}
    return bool(workers) and workers[0].phase is Phase.RUNNING
