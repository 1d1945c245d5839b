"""A worker looks up after each transaction: a pause, a stop and a rebalance wait for one, not for all that was fetched.

Each test has 400 events, fetched at once, of 50 ms each: twenty seconds of work.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from headrace import Event, Headrace, State
from headrace.engine.pace import Pace
from headrace.log.memory import MemoryLog
from headrace.log.ports import TopicPartition
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.obstacles import let_pass
from tests.support.platform import Notes, fetch, noted, publish, running, sample, settings_for, value
from tests.support.waiting import until

EVENTS, SECONDS, TARGET = 400, 0.05, 0.5
IN_ONE_TRANSACTION = round(TARGET / SECONDS) + 1


def _slow(settings: Settings, topic: str, kind: str, started: list[int]) -> Headrace:
    """Return a notebook whose handler takes its time; `started` are the numbers that it was given."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    def note(event: Noted, kept: State[Notes]) -> None:
        started.append(event.number)
        time.sleep(SECONDS)
        kept.numbers.append(event.number)

    async def note_async(event: Noted, kept: State[Notes]) -> None:
        started.append(event.number)
        await asyncio.sleep(SECONDS)
        kept.numbers.append(event.number)

    platform.subscription("notes").on(Noted)(note if kind == "sync" else note_async)
    return platform


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which kind of handler a subscription has."""
    return str(request.param)


async def test_pause_is_seen_within_one_transaction(
    database_url: str, topic_name: str, pool: asyncpg.Pool, kind: str
) -> None:
    started: list[int] = []
    platform = _slow(settings_for(database_url, partitions=1), topic_name, kind, started)
    async with running(platform, MemoryLog(), pace=Pace(target=TARGET, watch=0.05)) as runtime:
        await _begin(runtime, topic_name, started)
        await pool.execute("insert into headrace.subscription (subscription, paused) values ('notebook.notes', true)")
        await until(lambda: runtime.consumers["notes"].workers[0].orders.is_paused, "the worker is told")
        told_at = len(started)
        await until(lambda: _rests(runtime), "no handler runs any more")
        await let_pass(3 * TARGET)
        assert len(started) <= told_at + IN_ONE_TRANSACTION
        assert await _applied(runtime) == len(started), "a transaction was left undone"
        await pool.execute("update headrace.subscription set paused = false")
        await until(lambda: len(started) > told_at + IN_ONE_TRANSACTION, "what was fetched is applied on")
        assert started == list(range(len(started)))


async def test_stop_waits_for_one_transaction(database_url: str, topic_name: str, kind: str) -> None:
    started: list[int] = []
    platform = _slow(settings_for(database_url, partitions=1), topic_name, kind, started)
    async with running(platform, MemoryLog(), pace=Pace(target=TARGET)) as runtime:
        await _begin(runtime, topic_name, started)
        told_at = len(started)
        assert await runtime.consumers["notes"].stop(6.0), "the stop was cut short"
        assert len(started) <= told_at + IN_ONE_TRANSACTION
        assert await _applied(runtime) == len(started)
        assert await value(runtime, "select owner from headrace.claim") is None


async def test_rebalance_waits_for_one_transaction(database_url: str, topic_name: str, kind: str) -> None:
    started: list[int] = []
    platform = _slow(settings_for(database_url, partitions=1), topic_name, kind, started)
    async with running(platform, MemoryLog(), pace=Pace(target=TARGET)) as runtime:
        await _begin(runtime, topic_name, started)
        told_at = len(started)
        await runtime.consumers["notes"].lost([TopicPartition(topic_name, 0)])
        assert len(started) <= told_at + IN_ONE_TRANSACTION
        assert await _applied(runtime) == len(started)
        assert await value(runtime, "select owner from headrace.claim") is None


async def _begin(runtime: Runtime, topic: str, started: list[int]) -> None:
    await publish(runtime, *(noted(topic, f"page-{number % 5}", number) for number in range(EVENTS)))
    await until(lambda: _commits(runtime), "the first transaction is committed")
    await until(lambda: sample(runtime, "log_fetched_records_total") == EVENTS, "all were fetched")


async def _commits(runtime: Runtime) -> bool:
    return bool(await fetch(runtime, "select from headrace.ledger"))


async def _rests(runtime: Runtime) -> bool:
    tenure = runtime.consumers["notes"].workers[0].tenure
    return tenure is not None and not tenure.running


async def _applied(runtime: Runtime) -> int:
    return int(await value(runtime, "select coalesce(sum(applied), 0) from headrace.ledger"))
