"""A held call holds up its own key alone: what is behind it stays in Postgres until an operator lets it go on."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from headrace import Event, Headrace
from headrace.effects.listing import Filter, retry
from headrace.engine import outside
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from tests.support.auditing import assert_promises_hold
from tests.support.platform import publish, record, settings_for, value, watched
from tests.support.waiting import until


class Placed(Event, type="placed", topic="orders", key="order"):
    order: str
    number: int


def placed(order: str, number: int) -> Any:
    data = {"order": order, "number": number}
    return record("orders", "placed", data, key=order, id=f"{order}-{number}")


def holding(settings: Settings, calls: dict[str, list[int]], broken: set[str]) -> Headrace:
    platform = Headrace("shop", settings)

    @platform.subscription("payments").effect(Placed, attempts=1, at_end="hold")
    async def buy(event: Placed) -> None:
        if event.order in broken:
            raise KeyError
        calls[event.order].append(event.number)

    return platform


async def _retry(runtime: Any) -> int:
    async with runtime.pool.acquire() as connection:
        return await retry(connection, Filter("payments"))


def _in_memory(runtime: Any) -> int:
    return int(runtime.consumers["payments"].workers[0].tenure.memory.calls.total)


@pytest.mark.parametrize("is_taken_over", [False, True], ids=["same owner", "next owner"])
async def test_held_key_stops_no_other_and_goes_on_in_order(
    database_url: str, is_taken_over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "MOST_BEHIND", 7)
    calls: defaultdict[str, list[int]] = defaultdict(list)
    broken, log = {"held"}, MemoryLog()
    platform = holding(settings_for(database_url, partitions=1, effects_pending=10), calls, broken)
    held = "select count(*) from headrace.effect where due_at = 'infinity'"
    async with watched(platform, log) as runtime:
        await publish(runtime, *(placed("held", number) for number in range(30)))
        await until(lambda: value(runtime, held), "it is held")
        await publish(
            runtime, *(placed("held", number) for number in range(30, 40)), *(placed("other", n) for n in (1, 2))
        )
        await until(lambda: calls["other"] == [1, 2], "the other key goes on")
        assert _in_memory(runtime) == 1
        if not is_taken_over:
            broken.clear()
            assert await _retry(runtime) == 1
            await until(lambda: calls["held"] == list(range(40)), "the held key goes on, in order")
    async with watched(platform, log) as runtime:
        if is_taken_over:
            await publish(runtime, placed("other", 3), placed("held", 40))
            await until(lambda: calls["other"] == [1, 2, 3], "the other key goes on")
            assert _in_memory(runtime) == 1
            broken.clear()
            assert await _retry(runtime) == 1
            await until(lambda: len(calls["held"]) == 41, "the held key goes on")
            assert calls["held"] == list(range(41))
        await publish(runtime, placed("held", 50))
        await until(lambda: calls["held"][-1] == 50, "it goes on as before")
        await until(lambda: value(runtime, "select count(*) = 0 from headrace.effect"), "nothing is left")
        assert _in_memory(runtime) == 0
        await assert_promises_hold(database_url)
