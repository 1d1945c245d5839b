"""A worker that gets on with nothing is restarted, and its event is parked; one that only waits is left alone."""

from __future__ import annotations

import time
from typing import Any

import asyncpg

from headrace.database.pool import session_settings
from headrace.engine.worker import Phase, Worker
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from tests.support.obstacles import Gate, let_pass, locked
from tests.support.platform import (
    QUICK,
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
    watched,
)
from tests.support.waiting import until


async def test_event_whose_handler_hangs_is_parked(database_url: str, topic_name: str, gate: Gate) -> None:
    """The other keys are applied, also while its retries hang."""
    waits: dict[str, Any] = {"retry_attempts": 1_000, "retry_first_seconds": 0.05, "retry_max_seconds": 0.1}
    settings = settings_for(database_url, partitions=1, stuck_seconds=0.5, handler_threads=32, **waits)
    log = MemoryLog()
    async with watched(notebook(settings, topic_name, gate), log) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "held", "b"], 2))
        await until(lambda: has_pages(runtime, {"a": [1, 2], "b": [1, 2]}), "the other keys are applied")
        error = await value(runtime, "select error from headrace.lane")
        assert error == "the handler did not return for 0.5 seconds."
        reasons = await fetch(runtime, "select reason from headrace.parked order by number")
        assert [row["reason"] for row in reasons] == ["handler_error", "behind_key"]
        for number in range(3, 6):
            await until(lambda: _is_held_in_a_lane(runtime), "its retry hangs")
            await publish(runtime, *(noted(topic_name, page, number) for page in ("a", "held", "b")))
            expected = list(range(1, number + 1))
            await until(lambda: has_pages(runtime, {"a": expected, "b": expected}), "the other keys flow on")  # noqa: B023
        assert sample(runtime, "worker_abandoned_total", reason="handler") >= 4
        assert runtime.health.liveness() == (True, [])
        gate.open()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {page: [1, 2, 3, 4, 5] for page in ("a", "held", "b")}


async def test_worker_that_no_restart_helps_fails_liveness(database_url: str, topic_name: str, gate: Gate) -> None:
    """The only thread for handlers hangs, and only a new process has another: after four restarts it is asked for."""
    settings = settings_for(database_url, partitions=1, stuck_seconds=0.3, handler_threads=1, drain_seconds=0.1)
    async with watched(notebook(settings, topic_name, gate), MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["held", "a"], 1))
        for times in (1, 2, 3):
            await until(lambda: sample(runtime, "worker_abandoned_total") >= times, "it began anew")  # noqa: B023
            assert sample(runtime, "worker_abandoned_total") > times or runtime.health.liveness() == (True, [])
        await until(lambda: runtime.health.liveness() == (False, ["stuck:notes/0"]), "liveness fails")
        assert sample(runtime, "worker_abandoned_total") >= 4
        assert await pages(runtime) == {}


async def test_paused_worker_is_never_taken_for_a_stuck_one(
    database_url: str, topic_name: str, pool: asyncpg.Pool
) -> None:
    await pool.execute("insert into headrace.subscription (subscription, paused) values ('notebook.notes', true)")
    async with watched(
        notebook(settings_for(database_url, partitions=1, stuck_seconds=1.2), topic_name), MemoryLog()
    ) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: sample(runtime, "lag_records") == 1, "the watch sees the lag")
        await let_pass(seconds=2.0)
        assert sample(runtime, "worker_abandoned_total") == 0
        assert await pages(runtime) == {}
        await pool.execute("update headrace.subscription set paused = false")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def test_worker_that_waits_for_postgres_is_not_called_stuck(database_url: str, topic_name: str) -> None:
    settings = settings_for(database_url, partitions=1, stuck_seconds=2.5)
    options = session_settings(settings.database_options) | {"lock_timeout": "100"}
    pool = await asyncpg.create_pool(database_url, min_size=1, server_settings=options)
    async with watched(notebook(settings, topic_name), MemoryLog(), pool) as runtime:
        async with locked(database_url, "headrace.state"):
            await publish(runtime, noted(topic_name, "a", 1))
            await until(
                lambda: sample(runtime, "batch_reruns_total", cause="infrastructure") >= 6, "it was tried six times"
            )
        await until_settled(runtime, "notes")
        assert sample(runtime, "worker_abandoned_total") == 0
        assert await pages(runtime) == {"a": [1]}


async def test_refused_partition_leaves_the_process_alive(
    database_url: str, topic_name: str, pool: asyncpg.Pool
) -> None:
    """It waits for a person, and liveness does not fail."""
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1, stuck_seconds=0.2), topic_name)
    async with watched(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
    await pool.execute("update headrace.claim set last_crc = last_crc + 1")
    await log.publish([noted(topic_name, "a", 3)])
    async with watched(platform, log, is_refused=True) as runtime:
        await until(lambda: sample(runtime, "lag_records") == 1, "the watch sees the lag")
        await let_pass(seconds=1.5)
        assert sample(runtime, "worker_abandoned_total") == 0
        assert runtime.health.liveness() == (True, [])
        assert runtime.health.readiness() == (False, ["partition_refused:notes/0"])
        assert _worker(runtime).phase is Phase.REFUSED


async def test_slow_partition_that_gets_on_is_left_alone(database_url: str, topic_name: str) -> None:
    """All of its events are fetched at once, and take much longer than a worker may go without a commit."""
    settings = settings_for(database_url, partitions=1, stuck_seconds=1.0)
    log, platform = MemoryLog(), notebook(settings, topic_name, lambda event: time.sleep(0.03))
    await log.create(topic_name, 1)
    await log.publish(spread(topic_name, ["a", "b"], 60))
    async with running(platform, log, pace=QUICK._replace(target=0.1)) as runtime:
        await until_settled(runtime, "notes")
        assert sample(runtime, "worker_abandoned_total") == 0
        assert sample(runtime, "events_parked_total") == 0
        assert runtime.health.liveness() == (True, [])
        assert await pages(runtime) == {page: list(range(1, 61)) for page in "ab"}


def _worker(runtime: Runtime) -> Worker:
    return runtime.consumers["notes"].workers[0]


def _is_held_in_a_lane(runtime: Runtime) -> bool:
    running = _worker(runtime).status().running
    return running is not None and running.item.number > 0
