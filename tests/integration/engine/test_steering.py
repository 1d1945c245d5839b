"""Subscriptions are paused and resumed over HTTP, and a stop finishes what was begun."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

from headrace.engine.claim import claim, release
from headrace.log.memory import MemoryLog
from headrace.log.ports import TopicPartition
from tests.support.platform import (
    client,
    fetch,
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
        await until(lambda: runtime.consumers["notes"].workers[0].is_paused, "the worker knows")
        attempts = await value(runtime, "select attempts from headrace.lane")
        broken = False
        await publish(runtime, noted(topic_name, "a", 2))
        await until(lambda: sample(runtime, "lag_records") == 1, "the engine has looked at the log")
        assert await value(runtime, "select attempts from headrace.lane") <= attempts + 1
        assert await pages(runtime) == {}
        await http.post("/subscriptions/notes/resume")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}


async def test_stop_finishes_the_batch_in_flight_and_takes_no_more(database_url: str, topic_name: str) -> None:
    entered, release, log = asyncio.Event(), asyncio.Event(), MemoryLog()
    loop = asyncio.get_running_loop()

    def block(event: Any) -> None:
        if event.number == 1:
            loop.call_soon_threadsafe(entered.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30)

    settings = settings_for(database_url, partitions=1)
    platform = notebook(settings, topic_name, block)
    async with running(platform, log) as runtime:
        await publish(runtime, *spread(topic_name, ["a"], 2))
        await entered.wait()
        await publish(runtime, noted(topic_name, "a", 3))
        runtime.begin_drain()
        assert runtime.health.readiness() == (False, ["draining"])
        loop.call_later(0.1, release.set)
    async with running(notebook(settings, topic_name, subscription="idle"), log) as other:
        assert await pages(other) == {"a": [1, 2]}
        rows = await value(
            other, "select owner is null and crashes = 0 from headrace.claim where subscription = 'notebook.notes'"
        )
        assert rows is True, "the claim was let go politely"
    assert sample(runtime, "drains_total", outcome="clean") == 1
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2, 3]}


async def test_stop_ends_at_its_deadline_and_the_batch_happens_later(database_url: str, topic_name: str) -> None:
    entered, release, log = asyncio.Event(), asyncio.Event(), MemoryLog()
    loop = asyncio.get_running_loop()

    def block(event: Any) -> None:
        if not entered.is_set():
            loop.call_soon_threadsafe(entered.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30)

    platform = notebook(settings_for(database_url, partitions=1, drain_seconds=0.2), topic_name, block)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await entered.wait()
        started = time.monotonic()
    assert time.monotonic() - started < 10
    assert sample(runtime, "drains_total", outcome="cut_short") == 1
    release.set()
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def test_polite_restarts_count_no_crash(database_url: str, topic_name: str) -> None:
    log = MemoryLog()
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    for number in range(1, 5):
        async with running(platform, log) as runtime:
            row = (await fetch(runtime, "select crashes, epoch from headrace.claim"))[0]
            assert (row["crashes"], row["epoch"]) == (0, number)


async def test_owners_that_die_are_counted_and_progress_clears_them(pool: asyncpg.Pool) -> None:
    source = TopicPartition("pages", 0)

    async def crashes_seen_by(owner: str, log_end: int = 10) -> int:
        async with pool.acquire() as connection:
            held = await claim(
                connection,  # type: ignore[arg-type]
                "notes",
                source,
                owner,
                first_offset=0,
                log_end=log_end,
                suspect_records=100,
            )
            assert held.is_suspect == (held.crashes >= 2)
            assert held.is_guilty == (held.crashes >= 3)
            return held.crashes

    assert await crashes_seen_by("first") == 0
    assert await crashes_seen_by("second") == 1
    assert await crashes_seen_by("second") == 1, "the same owner claimed again: nobody died"
    assert await crashes_seen_by("third") == 2
    await pool.execute("update headrace.claim set next_offset = 5")
    assert await crashes_seen_by("fourth") == 1, "the third got on before it died"
    assert await crashes_seen_by("fifth") == 2
    assert await crashes_seen_by("sixth") == 3
    async with pool.acquire() as connection:
        await release(connection, "notes", 0, ["pages"], "sixth")  # type: ignore[arg-type]
    assert await crashes_seen_by("seventh") == 0, "the sixth let go politely"
    assert await crashes_seen_by("eighth", log_end=5) == 0, "nothing was left to apply: no event killed it"
