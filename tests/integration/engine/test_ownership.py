"""Partitions come, go, die and hang: a stop waits for its batch, a death is counted as one, and nothing else is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from headrace import Event, Headrace, State
from headrace.database.pool import session_settings
from headrace.engine.claim import GUILTY_CRASHES, claim, release
from headrace.engine.worker import Phase, Worker
from headrace.log.memory import MemoryLog
from headrace.log.ports import Bounds, TopicPartition
from headrace.log.stored import stored_record
from headrace.runtime import Runtime
from tests.support.platform import (
    Notes,
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
from tests.support.postgres_proxy import PostgresProxy
from tests.support.waiting import until


class Gate:
    """Holds a handler up, at event 1 of the page `held`, until it is opened; `entered` tells that it is there."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._opened = threading.Event()

    def __call__(self, event: Any) -> None:
        if (event.page, event.number) == ("held", 1):
            self.entered.set()
            assert self._opened.wait(60)

    def open(self) -> None:
        """Let it pass, and all that come after it."""
        self._opened.set()


@pytest.fixture
def gate() -> Any:
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch looks every twentieth of a second, so that stuck_seconds may be short."""
    monkeypatch.setattr("headrace.engine.consumer.WATCH_SECONDS", 0.05)
    monkeypatch.setattr("headrace.engine.consumer.GAUGE_SECONDS", 0.05)


async def test_rebalance_during_a_stop_waits_for_the_batch_as_the_stop_does(
    database_url: str, topic_name: str, gate: Gate
) -> None:
    async with running(notebook(settings_for(database_url, partitions=1), topic_name, gate), MemoryLog()) as runtime:
        consumer, partition = runtime.consumers["notes"], TopicPartition(topic_name, 0)
        await publish(runtime, noted(topic_name, "held", 1))
        await until(gate.entered.is_set, "the batch runs")
        stopping = asyncio.create_task(consumer.stop(10))
        await until(consumer.workers[0]._stopping.is_set, "the stop has begun")
        leaving = asyncio.create_task(consumer.revoked([partition]))
        done, _ = await asyncio.wait({stopping, leaving}, timeout=0.2)
        assert not done, "it did not wait for the batch"
        await consumer.assigned([partition])
        gate.open()
        assert await stopping
        await leaving
        await consumer.assigned([partition])
        assert consumer.workers == {}
        assert await pages(runtime) == {"held": [1]}
        assert await _claim(runtime) == (1, None, 0)


async def test_living_process_lets_its_claim_go_where_a_deadline_cuts_the_batch_short(
    database_url: str, topic_name: str, gate: Gate
) -> None:
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1), topic_name, gate)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "held", 1))
        await until(gate.entered.is_set, "the batch runs")
        assert not await runtime.consumers["notes"].stop(0.1)
        assert await _claim(runtime) == (0, None, 0)
    gate.open()
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"held": [1]}


@pytest.mark.parametrize("table", ["headrace.state", "headrace.lane"], ids=["in a batch", "in a claim"])
async def test_living_process_lets_its_claim_go_where_it_waits_for_postgres(
    database_url: str, topic_name: str, table: str
) -> None:
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, log) as runtime:
        consumer, partition = runtime.consumers["notes"], TopicPartition(topic_name, 0)
        async with _locked(database_url, table):
            if table == "headrace.lane":
                await consumer.revoked([partition])
                await consumer.assigned([partition])
            await publish(runtime, noted(topic_name, "a", 1))
            await until(lambda: _waiting_for_lock(runtime), "the worker waits for the lock")
            assert (await _claim(runtime))[1] is not None
            assert not await consumer.stop(0.1)
            assert await _claim(runtime) == (0, None, 0)
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def test_stop_that_overtakes_a_restart_lets_the_claim_go(database_url: str, topic_name: str) -> None:
    async with running(notebook(settings_for(database_url, partitions=1), topic_name), MemoryLog()) as runtime:
        worker = runtime.consumers["notes"].workers[0]
        _, is_clean = await asyncio.gather(worker.restart(), worker.stop(10))
        assert is_clean
        assert (await _claim(runtime))[1:] == (None, 0)


async def test_owners_that_die_while_nothing_is_to_do_are_not_counted(database_url: str, topic_name: str) -> None:
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1), topic_name)
    for events in (0, 3):
        for _ in range(GUILTY_CRASHES + 1):
            async with running(platform, log) as runtime:
                await until_settled(runtime, "notes")
                await _die(runtime)
                assert (await _claim(runtime))[1] is not None
        async with running(platform, log) as runtime:
            assert not _held(runtime).is_suspect
            await publish(runtime, *(noted(topic_name, "a", events + number) for number in range(3)))
            await until_settled(runtime, "notes")
            assert sample(runtime, "events_parked_total") == 0
            await _die(runtime)
    async with running(platform, log) as runtime:
        assert await pages(runtime) == {"a": [0, 1, 2, 3, 4, 5]}


async def test_only_progress_clears_the_count_of_deaths(pool: asyncpg.Pool) -> None:
    """A retry of a lane and a note that emits were published commit as well, and are no progress of the log."""
    source = TopicPartition("pages", 0)
    async with pool.acquire() as borrowed:
        connection: Any = borrowed
        await _take(connection, "first")
        held = await _take(connection, "second")
        assert held.crashes == 1
        await held.advance(connection, held.next_offset, 1, 1, None)
        held.advanced(held.next_offset, 1, 1, None)
        assert held.crashes == 1
        held = await _take(connection, "third")
        assert held.crashes == 2 and held.is_suspect
        await held.advance(connection, held.next_offset + 1, 2, 2, None)
        held.advanced(held.next_offset + 1, 2, 2, None)
        assert held.crashes == 0
        held = await _take(connection, "fourth")
        assert held.crashes == 1
        await release(connection, "notes", source.partition, [source.topic], "somebody else")
        assert (await _take(connection, "fifth")).crashes == 2
        await release(connection, "notes", source.partition, [source.topic], "fifth")
        assert (await _take(connection, "sixth")).crashes == 0


async def test_suspicion_ends_after_a_batch_of_events_that_went_one_at_a_time(
    database_url: str, topic_name: str, pool: asyncpg.Pool
) -> None:
    await pool.execute(
        "insert into headrace.claim (subscription, topic, partition, epoch, token, owner, claimed_offset, next_offset, "
        "crashes) values ('notes', $1, 0, 1, gen_random_uuid(), 'dead', 0, 0, 1)",
        topic_name,
    )
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1, batch_records=20), topic_name)
    await log.create(topic_name, 1)
    await log.publish([noted(topic_name, "a", number) for number in range(100)])
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": list(range(100))}
        rows = await fetch(runtime, "select next_offset - first_offset as size from headrace.ledger order by sequence")
        sizes = [row["size"] for row in rows]
        assert sizes[:20] == [1] * 20
        assert len(sizes) < 40 and max(sizes) == 20, sizes
        assert sample(runtime, "events_parked_total") == 0


@pytest.mark.parametrize("with_lane", [False, True], ids=["alone", "behind a lane that is due"])
async def test_event_that_kills_its_owners_is_given_up_on_after_a_few_deaths(
    database_url: str, topic_name: str, with_lane: bool
) -> None:
    gates, runs, log = [Gate()], 0, MemoryLog()

    def handle(event: Any) -> None:
        nonlocal runs
        if event.page == "lane":
            raise ValueError("always")
        runs += (event.page, event.number) == ("held", 1)
        gates[-1](event)

    async def is_over(runtime: Runtime) -> bool:
        return gates[-1].entered.is_set() or bool(await value(runtime, "select count(*) from headrace.dead_letter"))

    settings = settings_for(database_url, partitions=1, retry_attempts=10_000, retry_max_seconds=0.1, stuck_seconds=0.2)
    platform = notebook(settings, topic_name, handle)
    while runs < 20:
        async with running(platform, log) as runtime:
            if runs == 0:
                if with_lane:
                    await publish(runtime, noted(topic_name, "lane", 1))
                    await until(lambda: value(runtime, "select count(*) from headrace.lane"), "it waits in its lane")
                await publish(runtime, *spread(topic_name, ["a", "b", "held", "c"], 2))
            await until(lambda: is_over(runtime), "the killer runs, or was given up on")
            if not gates[-1].entered.is_set():
                break
            await _die(runtime)
        gates[-1].open()
        gates.append(Gate())
    assert runs == len(gates) - 1 <= 8
    async with running(platform, log) as runtime:
        await until(lambda: _have(runtime, {"a": [1, 2], "b": [1, 2], "c": [1, 2], "held": [2]}), "all else is applied")
        letters = await fetch(runtime, "select key, reason, error from headrace.dead_letter")
        assert [(row["key"], row["reason"]) for row in letters] == [(b"held", "gave_up")]
        assert "the process died each time" in letters[0]["error"]
        assert await value(runtime, "select sum(applied) from headrace.ledger") == 7


async def test_log_that_was_looked_at_before_another_owner_went_on_is_looked_at_again(
    database_url: str, topic_name: str
) -> None:
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
        async with running(notebook(settings, topic_name), late) as runtime:  # fails where the partition is refused
            assert runtime.health.readiness() == (True, [])
            await publish(runtime, noted(topic_name, "a", 3))
            await until_settled(runtime, "notes")
            assert await pages(runtime) == {"a": [1, 2, 3]}


@pytest.mark.usefixtures("quick_watch")
async def test_event_whose_handler_hangs_is_parked_and_other_keys_flow_while_its_retries_hang_too(
    database_url: str, topic_name: str, gate: Gate
) -> None:
    waits: dict[str, Any] = {"retry_attempts": 1_000, "retry_first_seconds": 0.05, "retry_max_seconds": 0.1}
    settings = settings_for(database_url, partitions=1, stuck_seconds=0.5, handler_threads=32, **waits)
    log = MemoryLog()
    async with running(notebook(settings, topic_name, gate), log) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "held", "b"], 2))
        await until(lambda: _have(runtime, {"a": [1, 2], "b": [1, 2]}), "the other keys are applied")
        error = await value(runtime, "select error from headrace.lane")
        assert error == "the handler did not return for 0.5 seconds."
        reasons = await fetch(runtime, "select reason from headrace.parked order by number")
        assert [row["reason"] for row in reasons] == ["handler_error", "behind_key"]
        for number in range(3, 6):
            await until(lambda: _is_held_in_a_lane(runtime), "its retry hangs")
            await publish(runtime, *(noted(topic_name, page, number) for page in ("a", "held", "b")))
            expected = list(range(1, number + 1))
            await until(lambda: _have(runtime, {"a": expected, "b": expected}), "the other keys flow on")  # noqa: B023
        assert sample(runtime, "client_recreated_total", reason="stuck") >= 4
        assert runtime.health.liveness() == (True, [])
        gate.open()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {page: [1, 2, 3, 4, 5] for page in ("a", "held", "b")}


@pytest.mark.usefixtures("quick_watch")
async def test_worker_that_no_new_beginning_helps_fails_liveness_at_the_fourth_time(
    database_url: str, topic_name: str, gate: Gate
) -> None:
    """The only thread for handlers hangs: nothing but a new process gives another one."""
    settings = settings_for(database_url, partitions=1, stuck_seconds=0.3, handler_threads=1, drain_seconds=0.1)
    async with running(notebook(settings, topic_name, gate), MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["held", "a"], 1))
        for times in (1, 2, 3):
            await until(lambda: sample(runtime, "client_recreated_total") >= times, "it began anew")  # noqa: B023
            assert sample(runtime, "client_recreated_total") > times or runtime.health.liveness() == (True, [])
        await until(lambda: runtime.health.liveness() == (False, ["stuck:notes/0"]), "liveness fails")
        assert sample(runtime, "client_recreated_total") >= 4
        assert await pages(runtime) == {}


@pytest.mark.usefixtures("quick_watch")
async def test_paused_worker_is_never_taken_for_a_stuck_one(
    database_url: str, topic_name: str, pool: asyncpg.Pool
) -> None:
    await pool.execute("insert into headrace.subscription (subscription, paused) values ('notebook.notes', true)")
    async with running(
        notebook(settings_for(database_url, partitions=1, stuck_seconds=1.2), topic_name), MemoryLog()
    ) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: sample(runtime, "lag_records") == 1, "the watch sees the lag")
        await _pass(seconds=2.0)
        assert sample(runtime, "client_recreated_total") == 0
        assert await pages(runtime) == {}
        await pool.execute("update headrace.subscription set paused = false")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


@pytest.mark.usefixtures("quick_watch")
async def test_worker_that_waits_for_postgres_is_never_taken_for_a_stuck_one(
    database_url: str, topic_name: str
) -> None:
    settings = settings_for(database_url, partitions=1, stuck_seconds=2.5)
    options = session_settings(settings.database_options) | {"lock_timeout": "100"}
    pool = await asyncpg.create_pool(database_url, min_size=1, server_settings=options)
    async with running(notebook(settings, topic_name), MemoryLog(), pool) as runtime:
        async with _locked(database_url, "headrace.state"):
            await publish(runtime, noted(topic_name, "a", 1))
            await until(
                lambda: sample(runtime, "batch_reruns_total", cause="infrastructure") >= 6, "it was tried six times"
            )
        await until_settled(runtime, "notes")
        assert sample(runtime, "client_recreated_total") == 0
        assert await pages(runtime) == {"a": [1]}


@pytest.mark.usefixtures("quick_watch")
async def test_refused_partition_waits_for_a_person_and_leaves_the_process_alive(
    database_url: str, topic_name: str, pool: asyncpg.Pool
) -> None:
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1, stuck_seconds=0.2), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
    await pool.execute("update headrace.claim set last_crc = last_crc + 1")
    await log.publish([noted(topic_name, "a", 3)])
    async with running(platform, log, is_refused=True) as runtime:
        await until(lambda: sample(runtime, "lag_records") == 1, "the watch sees the lag")
        await _pass(seconds=1.5)
        assert sample(runtime, "client_recreated_total") == 0
        assert runtime.health.liveness() == (True, [])
        assert runtime.health.readiness() == (False, ["partition_refused:notes/0"])
        assert _worker(runtime).phase is Phase.REFUSED


@pytest.mark.usefixtures("quick_watch")
async def test_slow_partition_that_gets_on_is_left_alone(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its events are fetched at once, and take much longer than a worker may go without a commit."""
    monkeypatch.setattr("headrace.engine.batch.TARGET_SECONDS", 0.1)
    settings = settings_for(database_url, partitions=1, stuck_seconds=1.0)
    log, platform = MemoryLog(), notebook(settings, topic_name, lambda event: time.sleep(0.03))
    await log.create(topic_name, 1)
    await log.publish(spread(topic_name, ["a", "b"], 60))
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert sample(runtime, "client_recreated_total") == 0
        assert sample(runtime, "events_parked_total") == 0
        assert runtime.health.liveness() == (True, [])
        assert await pages(runtime) == {page: list(range(1, 61)) for page in "ab"}


async def test_handler_that_swallows_its_cancellation_does_not_hold_the_process_up(
    database_url: str, topic_name: str
) -> None:
    platform, entered = Headrace("notebook", settings_for(database_url, partitions=1)), asyncio.Event()

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    async def note(event: Noted, kept: State[Notes]) -> None:
        kept.numbers.append(event.number)
        entered.set()
        with suppress(asyncio.CancelledError):  # as code does that catches whatever comes
            await asyncio.sleep(60)

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a"], 3))
        await entered.wait()
        assert not await runtime.consumers["notes"].stop(0.1)
        assert await pages(runtime) == {}, "an event was applied whose handler was cut off"
        assert await _claim(runtime) == (0, None, 0)


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
            await _ask_for_replay(database_url)
            proxy.drop_answer_to_commit() if lost == "answer" else proxy.drop_commit()
            worker.replays = [(row["id"], stored_record(row, 0))]
            await until(lambda: proxy.cuts == 1, "the connection was cut in a COMMIT")
            await until(lambda: _have(runtime, {"a": [1]}), "it is applied")
            worker.replays = [(row["id"], stored_record(row, 0))]  # as the watch read it before the commit
            await until(lambda: not worker.replays, "the worker took it up again")
            await publish(runtime, noted(topic_name, "a", 2))
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
    impatient = await asyncpg.create_pool(database_url, min_size=1, server_settings=options)
    async with _locked(database_url, "headrace.subscription"):
        starting = asyncio.create_task(_paused_then_resumed(platform, log, impatient, pool))
        await until(lambda: platform.runtime is not None and _is_running(platform.runtime), "the partition is claimed")
        await _pass(seconds=0.8)
        assert await pool.fetchval("select count(*) from headrace.ledger") == 0
    await starting


async def _paused_then_resumed(platform: Headrace, log: MemoryLog, own: asyncpg.Pool, pool: asyncpg.Pool) -> None:
    async with running(platform, log, own) as runtime:
        await until(lambda: sample(runtime, "subscription_paused") == 1, "it was read that the subscription is paused")
        assert await pages(runtime) == {}
        await pool.execute("update headrace.subscription set paused = false")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def _die(runtime: Runtime) -> None:
    """End every worker as a kill of its process does: at once, with nothing written and nothing let go."""
    for consumer in runtime.consumers.values():
        for worker in consumer.workers.values():
            assert worker._task is not None
            worker._task.cancel()
            await asyncio.wait({worker._task})
        consumer.workers.clear()


async def _take(connection: Any, owner: str) -> Any:
    """Claim offset 5 of a partition that has ten records."""
    source = TopicPartition("pages", 0)
    return await claim(connection, "notes", source, owner, first_offset=5, log_end=10, suspect_records=3)


async def _claim(runtime: Runtime) -> tuple[int, str | None, int]:
    """Return (next offset, owner, crashes) of the only claim."""
    (row,) = await fetch(runtime, "select next_offset, owner, crashes from headrace.claim")
    return row["next_offset"], row["owner"], row["crashes"]


def _held(runtime: Runtime) -> Any:
    (source,) = _worker(runtime).sources.values()
    return source.claim


def _worker(runtime: Runtime) -> Worker:
    return runtime.consumers["notes"].workers[0]


def _is_running(runtime: Runtime) -> bool:
    workers = runtime.consumers["notes"].workers if "notes" in runtime.consumers else {}
    return bool(workers) and workers[0].phase is Phase.RUNNING


async def _pass(seconds: float) -> None:
    """Let time pass, which is what must not matter here."""
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > seconds, "time passes")


async def _have(runtime: Runtime, expected: dict[str, list[int]]) -> bool:
    found = await pages(runtime)
    return {page: found.get(page) for page in expected} == expected


def _is_held_in_a_lane(runtime: Runtime) -> bool:
    processor = _worker(runtime)._processor
    run = processor._run if processor is not None else None
    return run is not None and run.current is not None and run.current.number > 0


async def _ask_for_replay(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("update headrace.dead_letter set decision = 'replay', decided_at = now()")
    await connection.close()


async def _waiting_for_lock(runtime: Runtime) -> bool:
    sql = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    return bool(await value(runtime, sql))


@asynccontextmanager
async def _locked(database_url: str, table: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute(f"lock table {table} in access exclusive mode")
            yield
    finally:
        await connection.close()
