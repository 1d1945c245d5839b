"""Windows on Postgres: they live through a restart, and a timer closes those of a key that has fallen silent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from headrace import Event, Headrace, State, Window
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.settings import Settings
from tests.support.platform import (
    client,
    execute,
    publish,
    record,
    running,
    sample,
    settings_for,
    states,
    until_settled,
    value,
)
from tests.support.waiting import until

NINE = datetime(2026, 3, 1, 9, tzinfo=UTC)


class Sum(BaseModel):
    total: int = 0


class Sums(BaseModel):
    """What the windows of a sensor came to, by their start."""

    totals: dict[str, int] = {}


def summing(settings: Settings, topic: str, **shape: Any) -> Headrace:
    """Return a service with windows, and a subscription that keeps what they come to."""
    platform = Headrace("sensors", settings)

    class Taken(Event, type="taken", topic=topic, key="sensor"):
        sensor: str
        value: int
        at: datetime

    class Summed(Event, type="summed", topic=topic, key="sensor"):
        sensor: str
        start: datetime
        total: int

    sums = platform.windows("sums", Sum, time=lambda event: event.at, **shape)

    @sums.on(Taken)
    def add(sum: Sum, event: Taken) -> None:
        sum.total += event.value

    def close(sum: Sum, window: Window) -> Any:
        return Summed(sensor=window.key, start=window.start, total=sum.total)

    close.__annotations__["return"] = Summed
    sums.closed(close)

    @platform.subscription("kept").on(Summed)
    def keep(event: Summed, kept: State[Sums]) -> None:
        assert f"{event.start:%H:%M:%S}" not in kept.totals
        kept.totals[f"{event.start:%H:%M:%S}"] = event.total

    return platform


def taken(topic: str, sensor: str, at: datetime, value: int) -> NewRecord:
    return record(topic, "taken", {"sensor": sensor, "value": value, "at": at.isoformat()}, key=sensor)


@pytest.mark.parametrize("every", [None, timedelta(seconds=30)], ids=["tumbling", "sliding"])
async def test_windows_live_through_a_restart(database_url: str, topic_name: str, every: timedelta | None) -> None:
    settings, log, size = settings_for(database_url, partitions=2), MemoryLog(), timedelta(minutes=1)
    places = [(sensor, second) for second in range(0, 300, 10) for sensor in ("a", "b", "c")]
    for part in (places[:40], places[40:]):
        platform = summing(settings, topic_name, size=size, every=every)
        async with running(platform, log) as runtime:
            await publish(runtime, *(taken(topic_name, s, NINE + timedelta(seconds=at), at) for s, at in part))
            await until_settled(runtime, "sums", "kept")
            async with client(platform) as http:
                shown = (await http.get("/state/sums/sum/a")).json()
            assert shown["late"] == 0 and len(shown["open"]) == (1 if every is None else 2)
            found = await states(runtime, "kept", "sums")
            timers = await value(runtime, "select count(*) from headrace.timer")
    step = 60 if every is None else 30
    expected = {
        f"{NINE + timedelta(seconds=start):%H:%M:%S}": sum(range(max(0, start), start + 60, 10))
        for start in range(step - 60, 300, step)
        if start + 60 <= 290
    }
    assert found == {sensor: {"totals": expected} for sensor in ("a", "b", "c")}
    assert timers == 3 * (1 if every is None else 2), "one for each window that is open"


async def test_timer_closes_the_window_of_a_silent_key(database_url: str, topic_name: str) -> None:
    platform = summing(settings_for(database_url, partitions=1), topic_name, size=timedelta(seconds=1))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, taken(topic_name, "a", NINE, 3), taken(topic_name, "a", NINE, 4))

        async def is_closed() -> bool:
            return await states(runtime, "kept", "sums") == {"a": {"totals": {"09:00:00": 7}}}

        await until(is_closed, "the window has closed")
        await until_settled(runtime, "sums", "kept")
        assert await value(runtime, "select count(*) from headrace.timer") == 0


async def test_late_events_and_closed_windows_are_counted_once(database_url: str, topic_name: str) -> None:
    """Also if their batch is rolled back, and if the function for late events fails at first."""
    platform = summing(
        settings_for(database_url, partitions=1, retry_first_seconds=0.01), topic_name, size=timedelta(minutes=1)
    )
    tries: list[int] = []

    def miss(event: Any, window: Window) -> None:
        tries.append(event.value)
        if len(tries) < 3:
            raise ValueError("not yet")

    platform.registry.windows["sums"].late(miss)
    seconds = (0, 70, 5, 130, 190, 20)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(taken(topic_name, "a", NINE + timedelta(seconds=at), at) for at in seconds))
        await until_settled(runtime, "sums", "kept")
        assert tries.count(5) >= 3, "its batch, and it alone, ran again"
        assert sample(runtime, "windows_late_total", subscription="sums") == 2
        assert sample(runtime, "windows_closed_total", subscription="sums") == 3
        assert (await states(runtime, "sums", "sum"))["a"]["late"] == 2


async def test_window_that_outlived_its_ttl_becomes_a_dead_letter(database_url: str, topic_name: str) -> None:
    """The service stood still for longer; the timer fires into a state that has expired."""
    settings, log = settings_for(database_url, partitions=1), MemoryLog()
    shape = {"size": timedelta(minutes=1), "ttl": timedelta(hours=1)}
    async with running(summing(settings, topic_name, **shape), log) as runtime:
        await log.publish([taken(topic_name, "a", NINE, 3)])
        await until_settled(runtime, "sums")
    await execute(database_url, "update headrace.state set expires_at = now() where state = 'sum'")
    await execute(database_url, "update headrace.timer set due_at = now()")
    async with running(summing(settings, topic_name, **shape), log) as runtime:

        async def is_told() -> bool:
            return bool(
                await value(runtime, "select count(*) from headrace.dead_letter where error like '%forgotten%'")
            )

        await until(is_told, "the lost window is a dead letter")
