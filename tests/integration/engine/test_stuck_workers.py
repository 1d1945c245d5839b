"""A worker that gets on with nothing is restarted, and its event is parked; one that only waits is left alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import asyncpg

from headrace import Event, Headrace, State
from headrace.database.pool import session_settings
from headrace.database.session import Session
from headrace.engine.worker import Phase, Worker
from headrace.log.memory import MemoryLog, MemoryReader
from headrace.log.ports import TopicPartition
from headrace.runtime import Runtime
from tests.support.obstacles import Gate, let_pass, locked
from tests.support.platform import (
    QUICK,
    Notes,
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
    states,
    until_settled,
    value,
    watched,
)
from tests.support.waiting import until


async def test_event_whose_handler_hangs_is_parked(database_url: str, topic_name: str, gate: Gate) -> None:
    """The other keys are applied, also while its retries hang."""
    waits: dict[str, Any] = {"retry_attempts": 1_000, "retry_first_seconds": 0.05, "retry_max_seconds": 0.1}
    settings = settings_for(database_url, partitions=1, handler_seconds=0.5, handler_threads=2, **waits)
    log = MemoryLog()
    async with watched(notebook(settings, topic_name, gate), log) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "held", "b"], 2))
        await until(lambda: has_pages(runtime, {"a": [1, 2], "b": [1, 2]}), "the other keys are applied")
        error = await value(runtime, "select error from headrace.lane")
        assert error.startswith("the handler did not return for 0.")
        reasons = await fetch(runtime, "select reason from headrace.parked order by number")
        assert [row["reason"] for row in reasons] == ["handler_error", "behind_key"]
        for number in range(3, 6):
            await until(lambda: _is_held_in_a_lane(runtime), "its retry hangs")
            await publish(runtime, *(noted(topic_name, page, number) for page in ("a", "held", "b")))
            expected = list(range(1, number + 1))
            await until(lambda: has_pages(runtime, {"a": expected, "b": expected}), "the other keys flow on")  # noqa: B023
        await until(
            lambda: sample(runtime, "worker_abandoned_total", reason="handler") >= 4, "its runs are given up on"
        )
        assert runtime.health.liveness() == (True, [])
        gate.open()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {page: [1, 2, 3, 4, 5] for page in ("a", "held", "b")}


class DumbLog(MemoryLog):
    """A log whose readers never answer, as a client that has lost its connection without noticing."""

    async def reader(self, positions: Mapping[TopicPartition, int]) -> MemoryReader:
        made = await super().reader(positions)
        made._take = lambda *_: {}  # type: ignore[method-assign]
        return made


async def test_worker_that_no_restart_helps_fails_liveness(database_url: str, topic_name: str) -> None:
    """Only a new process may help after four restarts without progress."""
    settings = settings_for(database_url, partitions=1, stuck_seconds=0.3)
    async with watched(notebook(settings, topic_name), DumbLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a"], 1))
        for times in (1, 2, 3):
            await until(lambda: sample(runtime, "worker_abandoned_total") >= times, "it began again")  # noqa: B023
            assert sample(runtime, "worker_abandoned_total") > times or runtime.health.liveness() == (True, [])
        await until(lambda: runtime.health.liveness() == (False, ["stuck:notes/0"]), "liveness fails")
        assert sample(runtime, "client_recreated_total", reason="stuck") >= 4
        assert await pages(runtime) == {}


async def test_hanging_handler_starves_no_other_subscription(database_url: str, topic_name: str, gate: Gate) -> None:
    """Its subscription's only thread hangs: the other one has threads of its own, and it gets another one itself."""
    settings = settings_for(database_url, partitions=1, handler_threads=1, handler_seconds=1.0)
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    def hang(event: Noted, kept: State[Notes]) -> None:
        gate(event)
        kept.numbers.append(event.number)

    @platform.subscription("others").on(Noted)
    def note(event: Noted, kept: State[Notes]) -> None:
        kept.numbers.append(event.number)

    async with watched(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["held", "a"], 1))
        await until(gate.entered.is_set, "the handler hangs")
        await until(lambda: value_of(runtime, "others", "held"), "the other subscription applies the same event")
        await until(lambda: has_pages(runtime, {"a": [1]}), "its own subscription applies the others")
        assert runtime.health.liveness() == (True, [])


async def value_of(runtime: Runtime, subscription: str, page: str) -> list[int]:
    return list((await states(runtime, subscription, "notes")).get(page, {}).get("numbers", []))


async def test_hung_retry_is_noticed_while_there_is_no_lag(database_url: str, topic_name: str, gate: Gate) -> None:
    """The other key's retry comes although no event does."""
    waits: dict[str, Any] = {"retry_first_seconds": 0.05, "retry_max_seconds": 0.1, "retry_attempts": 1_000}
    settings = settings_for(database_url, partitions=1, handler_seconds=0.5, **waits)
    is_broken = True

    def handle(event: Any) -> None:
        if event.page == "held" and not is_broken:
            gate(event)
        if is_broken:
            raise ValueError("not yet")

    async with watched(notebook(settings, topic_name, handle), MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["held", "b"], 1))
        await until(lambda: value(runtime, "select count(*) = 2 from headrace.lane"), "both are parked")
        is_broken = False
        await until(lambda: has_pages(runtime, {"b": [1]}), "the other key is applied")


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
    pool = await asyncpg.create_pool(database_url, min_size=1, connection_class=Session, server_settings=options)
    async with watched(notebook(settings, topic_name), MemoryLog(), pool) as runtime:
        async with locked(database_url, "headrace.state"):
            await publish(runtime, noted(topic_name, "a", 1))
            await until(
                lambda: sample(runtime, "batch_reruns_total", cause="infrastructure") >= 6, "it was tried six times"
            )
        await until_settled(runtime, "notes")
        assert sample(runtime, "worker_abandoned_total") == 0
        assert await pages(runtime) == {"a": [1]}


async def test_worker_that_waits_for_a_thread_is_not_called_stuck(database_url: str, topic_name: str) -> None:
    """Handlers of other partitions have them all, and each comes to its own end."""
    settings = settings_for(database_url, partitions=1, handler_threads=1)
    async with running(notebook(settings, topic_name), MemoryLog()) as runtime:
        worker, supervisor = _worker(runtime), runtime.consumers["notes"]._supervisor
        places = runtime.consumers["notes"].threads._places
        await places.acquire()
        await publish(runtime, *spread(topic_name, ["a"], 1))
        await until(lambda: _runs(worker), "a run waits for a thread")
        worker._touched_at -= 3_600
        supervisor.lag[0], supervisor._waiting[0] = 1, (worker.status().position, time.monotonic() - 3_600)
        supervisor.look()
        places.release()
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


def _runs(worker: Worker) -> bool:
    return worker.tenure is not None and worker.tenure.running != []


def _worker(runtime: Runtime) -> Worker:
    return runtime.consumers["notes"].workers[0]


def _is_held_in_a_lane(runtime: Runtime) -> bool:
    tenure = _worker(runtime).tenure
    return tenure is not None and any(run.is_beside and run.current is not None for run in tenure.running)
