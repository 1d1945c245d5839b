"""A stop waits for the batch that runs; a process that lives gives its claim back in whatever state it stops."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

from headrace import Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.log.ports import TopicPartition
from headrace.runtime import Runtime
from tests.support.obstacles import Gate, is_waiting_for_a_lock, locked
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
from tests.support.waiting import until


async def test_rebalance_during_a_stop_waits_for_the_batch(database_url: str, topic_name: str, gate: Gate) -> None:
    async with running(notebook(settings_for(database_url, partitions=1), topic_name, gate), MemoryLog()) as runtime:
        consumer, partition = runtime.consumers["notes"], TopicPartition(topic_name, 0)
        await publish(runtime, noted(topic_name, "held", 1))
        await until(gate.entered.is_set, "the batch runs")
        stopping = asyncio.create_task(consumer.stop(10))
        await until(consumer.workers[0]._stopping.is_set, "the stop has begun")
        leaving = asyncio.create_task(consumer.lost([partition]))
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


async def test_stop_releases_the_claim_of_a_batch_that_is_cut_short(
    database_url: str, topic_name: str, gate: Gate
) -> None:
    """The deadline of the stop cuts the batch short. The process lives, so the claim is no trace of a death."""
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
async def test_stop_releases_the_claim_while_postgres_is_waited_for(
    database_url: str, topic_name: str, table: str
) -> None:
    """The process lives, so the claim is no trace of a death."""
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, log) as runtime:
        consumer, partition = runtime.consumers["notes"], TopicPartition(topic_name, 0)
        async with locked(database_url, table):
            if table == "headrace.lane":
                await consumer.lost([partition])
                await consumer.assigned([partition])
            await publish(runtime, noted(topic_name, "a", 1))
            await until(lambda: is_waiting_for_a_lock(runtime), "the worker waits for the lock")
            assert (await _claim(runtime))[1] is not None
            is_clean = await consumer.stop(0.1)
            assert is_clean == (table == "headrace.lane"), "a claim has nothing in flight that a stop could cut short"
            assert await _claim(runtime) == (0, None, 0)
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def test_stop_that_overtakes_a_new_tenure_releases_the_claim(database_url: str, topic_name: str) -> None:
    async with running(notebook(settings_for(database_url, partitions=1), topic_name), MemoryLog()) as runtime:
        worker = runtime.consumers["notes"].workers[0]
        worker.abandon()
        assert await worker.stop(10)
        assert (await _claim(runtime))[1:] == (None, 0)


async def test_handler_that_swallows_its_cancellation_is_cut_off(database_url: str, topic_name: str) -> None:
    """It does not hold the stop up, and its event is not applied."""
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
        assert rows is True, "the claim was released"
    assert sample(runtime, "drains_total", outcome="clean") == 1
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2, 3]}


async def test_stop_ends_at_its_deadline_and_the_batch_happens_later(database_url: str, topic_name: str) -> None:
    entered, release, left, log = asyncio.Event(), asyncio.Event(), threading.Event(), MemoryLog()
    loop = asyncio.get_running_loop()

    def block(event: Any) -> None:
        if not entered.is_set():
            loop.call_soon_threadsafe(entered.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30)
            left.set()

    platform = notebook(settings_for(database_url, partitions=1, drain_seconds=0.2), topic_name, block)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await entered.wait()
    assert not left.is_set(), "the stop waited for the handler"
    assert sample(runtime, "drains_total", outcome="cut_short") == 1
    release.set()
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def _claim(runtime: Runtime) -> tuple[int, str | None, int]:
    """Return (next offset, owner, crashes) of the only claim."""
    (row,) = await fetch(runtime, "select next_offset, owner, crashes from headrace.claim")
    return row["next_offset"], row["owner"], row["crashes"]
