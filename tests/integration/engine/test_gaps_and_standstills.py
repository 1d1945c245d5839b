"""A gap's wait is not over before the log has been read: the missing event may be the next record of it."""

from __future__ import annotations

from headrace import InSequence
from headrace.log.memory import MemoryLog
from tests.integration.engine.test_order_of_events import held, numbered, ordered
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
from tests.support.waiting import until

LONG = InSequence(wait_seconds=3600)


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
