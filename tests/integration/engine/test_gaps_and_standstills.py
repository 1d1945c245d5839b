"""A gap's wait is not over before the log has been read: the missing event may be the next record of it."""

from __future__ import annotations

from contextlib import suppress
from threading import Event
from typing import Any

import pytest

from headrace.engine.batch import BatchProcessor
from headrace.engine.lanes import Lanes
from headrace.errors import TransportError
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from tests.support.platform import (
    client,
    execute,
    has_pages,
    publish,
    running,
    settings_for,
    until_settled,
    value,
    watched,
)
from tests.support.sequences import LONG, held, numbered, ordered
from tests.support.waiting import until


async def test_missing_event_that_came_while_nobody_read(database_url: str, topic_name: str) -> None:
    """The wait ended while no process ran: the next owner reads what came first."""
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1, 3))
        await until(lambda: held(runtime), "the event is held")
    await execute(database_url, "update headrace.lane set due_at = now() - interval '1 hour'")
    await log.publish(numbered(topic_name, "a", 2))
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 2, 3]})


async def test_missing_event_that_came_while_nobody_read_for_a_pause(database_url: str, topic_name: str) -> None:
    platform = ordered(settings_for(database_url, partitions=1), topic_name, LONG)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as web:
        await publish(runtime, *numbered(topic_name, "a", 1, 3))
        await until(lambda: held(runtime), "the event is held")
        await web.post("/subscriptions/notes/pause")
        tenure = runtime.consumers["notes"].workers[0].tenure
        assert tenure is not None
        await until(lambda: tenure.memory.lanes.stands_still, "the log is not read")
        tenure.memory.lanes.move(2 * LONG.wait_seconds)
        await publish(runtime, *numbered(topic_name, "a", 2))
        await web.post("/subscriptions/notes/resume")
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 2, 3]})


async def test_log_that_does_not_tell_its_end_ends_no_tenure(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker is away when a pause is over: what can be fetched is applied, and gaps wait as long as any."""
    log = MemoryLog()
    platform = ordered(settings_for(database_url, partitions=1), topic_name, LONG)
    async with watched(platform, log) as runtime, client(platform) as web:
        await publish(runtime, *numbered(topic_name, "a", 1, 3))
        await until(lambda: held(runtime), "the event is held")
        await web.post("/subscriptions/notes/pause")
        worker = runtime.consumers["notes"].workers[0]
        tenure = worker.tenure
        assert tenure is not None
        await until(lambda: tenure.memory.lanes.stands_still, "the log is not read")

        async def bounds(*arguments: Any) -> Any:
            raise TransportError("the leader does not answer")

        monkeypatch.setattr(log, "bounds", bounds)
        await web.post("/subscriptions/notes/resume")
        await until(lambda: not tenure.memory.lanes.stands_still, "the log is read again")
        await log.publish(numbered(topic_name, "a", 2))
        await until(lambda: has_pages(runtime, {"a": [1, 2, 3]}), "what comes is applied")
        assert worker.tenure is tenure


async def test_gap_that_was_due_is_passed_over_once_the_log_is_read(database_url: str, topic_name: str) -> None:
    """An operator lets one of the keys go on before."""
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1, 3))
        await until(lambda: held(runtime), "the event is held")
    await execute(database_url, "update headrace.lane set due_at = now() - interval '1 hour'")
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 3]})
        assert await value(runtime, "select count(*) from headrace.parked") == 0


async def test_gap_that_is_found_while_due_times_are_read(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read of its lane is older than the gap: it would be due as the failed event before it was."""
    is_broken, may_return, has_read, turns = True, Event(), False, 0

    class Broken(set[int]):
        """Number 1 raises, and then it takes until the due times have been read."""

        def __contains__(self, number: object) -> bool:
            return number == 1 and (is_broken or not may_return.wait(30))

    settings = settings_for(database_url, partitions=1, retry_first_seconds=600, retry_max_seconds=600)
    platform = ordered(settings, topic_name, LONG, Broken({1}))
    async with watched(platform, MemoryLog()) as runtime, client(platform) as web:
        await publish(runtime, *numbered(topic_name, "a", 1, 3), *numbered(topic_name, "b", 1))
        await until(lambda: _count(runtime, "attempts = 1", 2), "both keys wait for a retry")
        is_broken = False
        workers = runtime.consumers["notes"].workers
        await web.post("/subscriptions/notes/lanes/retry?key=a")
        await until(lambda: workers[0].tenure is not None and workers[0].tenure.running, "the handler is called")

        async def begin_turn(self: BatchProcessor) -> None:
            nonlocal turns
            turns += has_read
            await begin(self)

        async def read(self: Lanes, connection: Any, *arguments: Any) -> None:
            class Late:
                async def fetch(self, *query: Any) -> Any:
                    nonlocal has_read
                    rows, has_read = await connection.fetch(*query), True
                    may_return.set()
                    await until(lambda: turns, "the run is about to write")
                    with suppress(TimeoutError):
                        await until(
                            lambda: _count(runtime, "error_type = 'SequenceGapError'", 1), "it has written", 0.5
                        )
                    return rows

            late: Any = Late()
            await read_due_times(self, late, *arguments)

        begin, read_due_times = BatchProcessor.begin_turn, Lanes.read_due_times
        monkeypatch.setattr(BatchProcessor, "begin_turn", begin_turn)
        monkeypatch.setattr(Lanes, "read_due_times", read)
        await web.post("/subscriptions/notes/lanes/retry?key=b")
        await until(lambda: has_pages(runtime, {"a": [1], "b": [1]}), "the heads are applied")
        assert await held(runtime) == ["a"]
        await publish(runtime, *numbered(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 2, 3], "b": [1]})


async def _count(runtime: Runtime, condition: str, lanes: int) -> bool:
    return bool(await value(runtime, f"select count(*) from headrace.lane where {condition}") == lanes)
