"""A worker between its states: fenced, abandoned or stopped while it claims, and a claim that goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import pytest

from headrace.engine import worker
from headrace.engine.worker import Phase, Worker
from headrace.log.memory import MemoryLog, MemoryReader
from headrace.log.ports import Bounds, NewRecord, Position, TopicPartition
from headrace.runtime import Runtime
from tests.support.obstacles import Gate, is_waiting_for_a_lock, locked
from tests.support.platform import (
    holdings,
    notebook,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    until_settled,
    value,
    watched,
)
from tests.support.services import echoing, noted_numbers
from tests.support.waiting import until


async def test_owner_that_was_fenced_notices_a_claim_that_goes_back(
    database_url: str, topic_name: str, pool: asyncpg.Pool, gate: Gate
) -> None:
    """It was fenced in the middle of a batch, and is idle afterwards: no event tells it."""
    async with watched(notebook(settings_for(database_url, partitions=1), topic_name, gate), MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "held", 1), noted(topic_name, "held", 2))
        await until(gate.entered.is_set, "the batch runs")
        await pool.execute("update headrace.claim set epoch = epoch + 1, token = gen_random_uuid()")
        gate.open()
        await until(lambda: sample(runtime, "claim_fenced_total") == 1, "it is fenced")
        await until_settled(runtime, "notes")
        epoch = await pool.fetchval("select epoch from headrace.claim")
        await pool.execute(
            "update headrace.claim set next_offset = 1, last_offset = null, last_timestamp = null, last_crc = null"
        )
        await until(lambda: _has_epoch(runtime, epoch + 1), "it has claimed again")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"held": [1, 2]}


class SlowLog(MemoryLog):
    """A log that says where a partition ends only when it is told to; what it is asked meanwhile waits."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.answers.set()
        self.waiting = 0

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        self.waiting += 1
        await self.answers.wait()
        self.waiting -= 1
        return await super().bounds(partitions)


async def test_stop_does_not_wait_for_a_claim(database_url: str, topic_name: str) -> None:
    """The log does not answer a worker that claims: nothing is in flight, and the stop is clean at once."""
    log = SlowLog()
    async with running(notebook(settings_for(database_url, partitions=1), topic_name), log) as runtime:
        consumer, partition = runtime.consumers["notes"], TopicPartition(topic_name, 0)
        await consumer.lost([partition])
        log.answers.clear()
        await consumer.assigned([partition])
        await until(lambda: log.waiting, "the worker claims")
        assert await asyncio.wait_for(consumer.stop(20.0), 10)
        assert await value(runtime, "select owner from headrace.claim") is None
        log.answers.set()


async def test_refused_partition_that_leaves_is_no_obstacle(
    database_url: str, topic_name: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves while its worker claims once more: readiness does not name it any longer."""
    monkeypatch.setattr(worker, "REFUSED_SECONDS", 0.05)
    log, platform = SlowLog(), notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
    await pool.execute("update headrace.claim set last_crc = last_crc + 1")
    await log.publish([noted(topic_name, "a", 2)])
    async with running(platform, log, is_waiting=True) as runtime:
        await until(lambda: runtime.health.readiness() == (False, ["partition_refused:notes/0"]), "it is refused")
        log.answers.clear()
        await until(lambda: log.waiting and _worker(runtime).phase is Phase.CLAIMING, "it claims once more")
        await runtime.consumers["notes"].lost([TopicPartition(topic_name, 0)])
        assert runtime.health.readiness() == (True, [])
        log.answers.set()


@pytest.mark.parametrize("table", ["headrace.claim", "headrace.lane"])
async def test_worker_abandoned_while_it_claims_claims_again(database_url: str, topic_name: str, table: str) -> None:
    """The first claim waits for a lock; whichever of the two gets it, one owner is left, and each event counts once."""
    log = MemoryLog()
    async with running(notebook(settings_for(database_url, partitions=1), topic_name), log) as runtime:
        consumer, partition = runtime.consumers["notes"], TopicPartition(topic_name, 0)
        await consumer.lost([partition])
        await publish(runtime, *(noted(topic_name, "a", number) for number in range(5)))
        async with locked(database_url, table):
            await consumer.assigned([partition])
            await until(lambda: is_waiting_for_a_lock(runtime), "the worker waits for the lock")
            for _ in range(3):
                _worker(runtime).abandon()
                await until(lambda: is_waiting_for_a_lock(runtime), "the next one waits")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [0, 1, 2, 3, 4]}
        assert _worker(runtime).phase is Phase.RUNNING
        (holding,) = holdings(runtime, "notes")
        assert holding.claim.epoch == await value(runtime, "select epoch from headrace.claim")


class HoldingLog(MemoryLog):
    """A log that keeps a publish of some topic waiting, even if it is cancelled, and then takes it in."""

    def __init__(self, topic: str) -> None:
        super().__init__()
        self._topic = topic
        self.held = asyncio.Event()
        self.release = asyncio.Event()

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        if records and records[0].topic == self._topic and not self.release.is_set():
            self.held.set()
            while not self.release.is_set():
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    continue
        return await super().publish(records)


async def test_worker_abandoned_while_it_publishes_loses_no_emit(database_url: str, topic_name: str) -> None:
    """The old relay's publish arrives late, beside the new one's: each emit counts once."""
    log = HoldingLog(f"{topic_name}-echoes")
    platform = echoing(settings_for(database_url, partitions=1), topic_name, lambda event: None, "sync")
    async with running(platform, log) as runtime:
        await publish(runtime, *(noted(topic_name, "a", number) for number in range(10)))
        await until(log.held.is_set, "the emits are being published")
        _worker(runtime).abandon()
        log.release.set()
        await until_settled(runtime, "notes", "echoes")
        assert sorted((await noted_numbers(runtime, "echoes"))["all"]) == list(range(10))
        assert await value(
            runtime, "select emitted_through >= sequence - 1 from headrace.claim where topic = $1", topic_name
        )


async def test_abandon_after_the_stop_has_begun_changes_nothing(database_url: str, topic_name: str, gate: Gate) -> None:
    """The stop waits for the batch, which the supervisor finds too slow in that moment."""
    async with running(notebook(settings_for(database_url, partitions=1), topic_name, gate), MemoryLog()) as runtime:
        held = _worker(runtime)
        await publish(runtime, noted(topic_name, "held", 1))
        await until(gate.entered.is_set, "the batch runs")
        stopping = asyncio.create_task(held.stop(10))
        await until(held._stopping.is_set, "the stop has begun")
        task = held._task
        held.abandon()
        assert held._task is task
        gate.open()
        assert await stopping
        assert await pages(runtime) == {"held": [1]}
        assert held.phase is Phase.RELEASED


async def test_stop_after_an_abandoned_tenure_waits_for_the_new_one(
    database_url: str, topic_name: str, gate: Gate
) -> None:
    async with running(notebook(settings_for(database_url, partitions=1), topic_name, gate), MemoryLog()) as runtime:
        held = _worker(runtime)
        await publish(runtime, noted(topic_name, "held", 1), noted(topic_name, "a", 1))
        await until(gate.entered.is_set, "the batch runs")
        held.abandon()
        assert await held.stop(10)
        assert held.phase is Phase.RELEASED
        assert await value(runtime, "select owner from headrace.claim") is None
        gate.open()


class CancellingLog(MemoryLog):
    """A log whose client cancels one of its own calls, as aiokafka does if a broker goes away."""

    def __init__(self) -> None:
        super().__init__()
        self.cancels = {"fetch": 3}

    async def reader(self, positions: Mapping[TopicPartition, int]) -> MemoryReader:
        made = await super().reader(positions)
        take = made._take

        def cancel(*arguments: Any) -> Any:
            if self.cancels["fetch"]:
                self.cancels["fetch"] -= 1
                raise asyncio.CancelledError
            return take(*arguments)

        made._take = cancel  # type: ignore[method-assign, assignment]
        return made

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Fail for the worker that claims, and for the watch that shows the lag."""
        await self._cancel("bounds")
        return await super().bounds(partitions)

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        if any(b"causationid" in (record.value or b"") for record in records):
            await self._cancel("emits")
        return await super().publish(records)

    async def _cancel(self, what: str) -> None:
        if self.cancels.get(what, 0):
            self.cancels[what] -= 1
            raise asyncio.CancelledError


async def test_cancellation_of_a_clients_own_ends_no_task(database_url: str, topic_name: str) -> None:
    """It comes out of fetches, questions and publishes; nothing but the tasks themselves would notice their end."""
    log = CancellingLog()
    platform = echoing(settings_for(database_url, partitions=1), topic_name, lambda event: None, "sync")
    async with watched(platform, log) as runtime:
        log.cancels |= {"bounds": 5, "emits": 3}
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: not any(log.cancels.values()), "every part has met it")
        await until_settled(runtime, "notes", "echoes")
        assert (await noted_numbers(runtime, "echoes"))["all"] == [1]
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert {"watch notes", "watch echoes", "worker notes/0", "worker echoes/0"} <= names
        await publish(runtime, noted(topic_name, "a", 2))
        await until_settled(runtime, "notes", "echoes")
        assert (await noted_numbers(runtime, "echoes"))["all"] == [1, 2]


async def _has_epoch(runtime: Runtime, epoch: int) -> bool:
    return bool(await value(runtime, "select epoch >= $1 from headrace.claim", epoch))


def _worker(runtime: Runtime) -> Worker:
    return runtime.consumers["notes"].workers[0]
