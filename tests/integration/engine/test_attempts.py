"""What uses up an attempt of a parked event: its own failures, and deaths of its process; no outage and no stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from headrace import Event, Headrace, State
from headrace.database.pool import session_settings
from headrace.database.session import Session
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.obstacles import Gate, locked
from tests.support.platform import (
    Notes,
    execute,
    fetch,
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

ATTEMPTS = 4
OUTAGES = ATTEMPTS + 1


def _failing(settings: Settings, topic: str, kind: str, act: Callable[[], Awaitable[None]]) -> Headrace:
    """Return a notebook whose handler awaits `act` on the loop, and then raises."""
    platform, loop = Headrace("notebook", settings), asyncio.get_running_loop()

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    def note(event: Noted, kept: State[Notes]) -> None:
        asyncio.run_coroutine_threadsafe(_awaited(act), loop).result(30)
        raise ValueError("always")

    async def note_async(event: Noted, kept: State[Notes]) -> None:
        await act()
        raise ValueError("always")

    platform.subscription("notes").on(Noted)(note if kind == "sync" else note_async)
    return platform


async def _awaited(act: Callable[[], Awaitable[None]]) -> None:
    await act()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_outage_during_a_run_uses_up_no_attempt(database_url: str, topic_name: str, kind: str) -> None:
    """In each of the first retries the database goes away, so that the outcome cannot be written."""
    disturbed, undisturbed = 0, 0
    outage = await asyncpg.connect(database_url)

    async def act() -> None:
        nonlocal disturbed, undisturbed
        if disturbed:
            await outage.execute("rollback")
        if await outage.fetchval("select count(*) from headrace.lane") == 0:
            return
        if disturbed < OUTAGES:
            disturbed += 1
            await outage.execute("begin; lock table headrace.ledger in access exclusive mode")
        else:
            undisturbed += 1

    settings = settings_for(database_url, partitions=1, retry_attempts=ATTEMPTS)
    async with running(_failing(settings, topic_name, kind, act), MemoryLog(), await _impatient(settings)) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: value(runtime, "select count(*) from headrace.dead_letter"), "it was given up on")
        (letter,) = await fetch(runtime, "select reason, attempts, error from headrace.dead_letter")
        assert (letter["reason"], letter["attempts"]) == ("gave_up", ATTEMPTS)
        assert "always" in letter["error"]
        assert (disturbed, undisturbed) == (OUTAGES, ATTEMPTS - 1), "the first run was the one from the log"
        assert sample(runtime, "batch_reruns_total", cause="infrastructure") >= OUTAGES
    await outage.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_killed_sessions_are_an_outage(database_url: str, topic_name: str, kind: str) -> None:
    """The driver finds a session dead in its own ways; none of them is taken for a fault of ours."""
    kills = 0
    killer = await asyncpg.connect(database_url)

    async def act() -> None:
        nonlocal kills
        if kills < OUTAGES:
            kills += 1
            await killer.execute(KILL)

    settings = settings_for(database_url, partitions=1, retry_attempts=ATTEMPTS + OUTAGES)
    with capture_logs() as said:
        async with running(_failing(settings, topic_name, kind, act), MemoryLog()) as runtime:
            await publish(runtime, noted(topic_name, "a", 1))
            await until(lambda: kills == OUTAGES, "the sessions were killed again and again")
            await until(lambda: _has_tried_again(runtime), "it was tried again")
    await killer.close()
    assert [entry for entry in said if "starts again" in entry["event"]] == []


async def test_outage_between_count_and_run_uses_up_no_attempt(database_url: str, topic_name: str) -> None:
    """A run is counted, and then the states cannot be read, again and again."""
    log, runs = MemoryLog(), 0

    def fail(event: Any) -> None:
        nonlocal runs
        runs += 1
        raise ValueError("always")

    settings = settings_for(database_url, partitions=1, retry_attempts=ATTEMPTS)
    patient = settings.model_copy(
        update={"engine": settings.engine.model_copy(update={"retry_first_seconds": 60.0, "retry_max_seconds": 60.0})}
    )
    async with running(notebook(patient, topic_name, fail), log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: value(runtime, "select count(*) from headrace.lane"), "it is parked")
        await value(runtime, "update headrace.lane set due_at = now()")
    impatient = await _impatient(settings)
    await execute(
        database_url, "insert into headrace.subscription (subscription, paused) values ('notebook.notes', true)"
    )
    async with running(notebook(settings, topic_name, fail), log, impatient) as runtime:
        async with locked(database_url, "headrace.state"):
            await execute(database_url, "update headrace.subscription set paused = false")
            await until(
                lambda: sample(runtime, "batch_reruns_total", cause="infrastructure") >= ATTEMPTS,
                "the run was counted, and the states could not be read",
            )
            assert await value(runtime, "select attempts from headrace.lane") == 2
            assert runs == 2, "a quick run found the fault, and a careful one counts"
        await until_settled(runtime, "notes")
        assert await value(runtime, "select attempts from headrace.dead_letter") == ATTEMPTS
        assert runs == 1 + ATTEMPTS


async def test_stop_that_cuts_a_run_short_uses_up_no_attempt(database_url: str, topic_name: str, gate: Gate) -> None:
    log, platform = MemoryLog(), _held_in_its_lane(settings_for(database_url, partitions=1), topic_name, gate)
    for _ in range(3):
        async with running(platform, log) as runtime:
            await _hang_in_a_lane(runtime, topic_name, gate)
            assert not await runtime.consumers["notes"].stop(0.05)
            assert await value(runtime, "select attempts from headrace.lane") == 2
            gate.entered.clear()
    gate.open()
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"held": [1]}


async def test_death_of_the_process_in_a_run_uses_up_an_attempt(database_url: str, topic_name: str) -> None:
    """Three runs are allowed: one failed, two ended their process. There is no fourth."""
    log, gates = MemoryLog(), [Gate()]
    settings = settings_for(database_url, partitions=1, retry_attempts=3)

    def hold(event: Any) -> None:
        gates[-1](event)

    platform = _held_in_its_lane(settings, topic_name, hold)
    for attempts in (2, 3):
        async with running(platform, log) as runtime:
            await _hang_in_a_lane(runtime, topic_name, gates[-1])
            assert await value(runtime, "select attempts from headrace.lane") == attempts
            await _die(runtime)
        gates[-1].open()
        gates.append(Gate())
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        (letter,) = await fetch(runtime, "select reason, attempts, error from headrace.dead_letter")
        assert (letter["reason"], letter["attempts"]) == ("gave_up", 3)
        assert "the process died" in letter["error"]
        assert not gates[-1].entered.is_set()


async def test_fewer_attempts_than_were_made_are_no_death(database_url: str, topic_name: str) -> None:
    """A release that allows fewer tries an event once more, and says what its handler raised."""
    log, calls = MemoryLog(), 0

    def fail(event: Any) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("a fault of the team's own")

    def made(attempts: int) -> Headrace:
        return notebook(settings_for(database_url, partitions=1, retry_attempts=attempts), topic_name, fail)

    async with running(made(1_000), log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: value(runtime, "select attempts > 4 from headrace.lane"), "it was tried often")
    before = calls
    async with running(made(3), log) as runtime:
        await until_settled(runtime, "notes")
        assert "a fault of the team's own" in await value(runtime, "select error from headrace.dead_letter")
        assert calls == before + 1


KILL = (
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
    "and application_name = 'headrace'"
)


def _held_in_its_lane(settings: Settings, topic: str, gate: Callable[[Any], None]) -> Headrace:
    """Return a notebook whose handler raises in the first two calls (one run); the gate holds it in the others."""
    calls, lock = 0, threading.Lock()

    def handle(event: Any) -> None:
        nonlocal calls
        with lock:
            calls += 1
            is_first = calls <= 2
        if is_first:
            raise ValueError("at first")
        gate(event)

    return notebook(settings, topic, handle)


async def _hang_in_a_lane(runtime: Runtime, topic: str, gate: Gate) -> None:
    if not await value(runtime, "select count(*) from headrace.lane"):
        await publish(runtime, noted(topic, "held", 1))
    await until(gate.entered.is_set, "its retry hangs")


async def _die(runtime: Runtime) -> None:
    """End every worker as a kill of its process does: at once, with nothing written and nothing released."""
    for consumer in runtime.consumers.values():
        for worker in consumer.workers.values():
            assert worker._task is not None
            worker._task.cancel()
            await asyncio.wait({worker._task})
        consumer.workers.clear()


async def _impatient(settings: Settings) -> asyncpg.Pool:
    """Return a pool whose sessions wait only a moment for a lock."""
    options = session_settings(settings.database_options) | {"lock_timeout": "50"}
    return await asyncpg.create_pool(
        settings.database_url, min_size=1, connection_class=Session, server_settings=options
    )


async def _has_tried_again(runtime: Runtime) -> bool:
    """Tell whether the lane's head was tried twice or more."""
    try:
        return bool(await value(runtime, "select attempts > 2 from headrace.lane"))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        return False  # this session was killed as well
