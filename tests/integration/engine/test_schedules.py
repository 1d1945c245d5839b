"""A schedule's event leaves once at each time, whoever owns partition 0, and a changed one takes its place."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from headrace import Envelope, Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from tests.support.platform import Notes, execute, fetch, running, settings_for, states, until_settled
from tests.support.waiting import until


async def test_each_time_has_one_event_that_names_it(database_url: str, topic_name: str) -> None:
    log, platform = MemoryLog(), _reports(settings_for(database_url), topic_name, "0 9 * * *")
    async with running(platform, log) as runtime:
        (timer,) = await _timers(runtime)
        assert (timer["due_at"].hour, timer["due_at"].minute, timer["partition"]) == (9, 0, 0)
    await execute(database_url, "update headrace.timer set due_at = due_at - interval '2 years'")
    async with running(platform, log) as runtime:  # years later: what was missed comes to one event
        await until(lambda: _noted(runtime), "its time has come")
        await until_settled(runtime, "reports")
        assert await _noted(runtime) == [_seconds(timer["due_at"])], "the time that it was set for"
        (following,) = await _timers(runtime)
        assert following["due_at"] == timer["due_at"], "the next one is ahead of now"
    async with running(platform, log) as runtime:
        assert await _timers(runtime) == [following], "a new owner changes nothing"


async def test_zone_is_that_of_the_schedule(database_url: str, topic_name: str) -> None:
    platform = _reports(settings_for(database_url), topic_name, "0 9 * * *", "Asia/Kolkata")
    async with running(platform, MemoryLog()) as runtime:
        (timer,) = await _timers(runtime)
        assert (timer["due_at"].hour, timer["due_at"].minute) == (3, 30)


async def test_changed_schedule_takes_the_place_of_the_old_one(database_url: str, topic_name: str) -> None:
    log, settings = MemoryLog(), settings_for(database_url)
    async with running(_reports(settings, topic_name, "0 9 * * *"), log) as runtime:
        assert [timer["due_at"].hour for timer in await _timers(runtime)] == [9]
    async with running(_reports(settings, topic_name, "0 17 * * *"), log) as runtime:
        assert [timer["due_at"].hour for timer in await _timers(runtime)] == [17]


async def test_schedule_that_is_not_declared_any_more_ends(database_url: str, topic_name: str) -> None:
    log, settings = MemoryLog(), settings_for(database_url)
    async with running(_reports(settings, topic_name, "0 9 * * *"), log):
        pass
    await execute(database_url, "update headrace.timer set due_at = clock_timestamp()")
    async with running(_reports(settings, topic_name, None), log) as runtime:
        await until(lambda: _is_gone(runtime), "its timer is gone")
        assert await _noted(runtime) == []


def _reports(settings: Settings, topic: str, cron: str | None, timezone: str = "UTC") -> Headrace:
    """A service that notes the times of its reports."""
    platform = Headrace("reporter", settings)

    class ReportDue(Event, type="report.due", topic=topic, key="kind", internal=True):
        kind: str = "daily"

    reports = platform.subscription("reports")
    if cron is not None:
        reports.schedule(ReportDue(), cron, timezone=timezone)

    @reports.on(ReportDue)
    def report(event: ReportDue, envelope: Envelope, kept: State[Notes]) -> None:
        assert envelope.time is not None
        kept.numbers.append(round(envelope.time.timestamp()))

    return platform


def _seconds(time: datetime) -> int:
    return round(time.replace(tzinfo=UTC).timestamp())


async def _timers(runtime: Any) -> list[Any]:
    return await fetch(runtime, "select name, partition, due_at at time zone 'UTC' as due_at from headrace.timer")


async def _noted(runtime: Any) -> list[int]:
    kept = await states(runtime, "reports", "notes")
    return [number for notes in kept.values() for number in notes["numbers"]]


async def _is_gone(runtime: Any) -> bool:
    return await _timers(runtime) == []
