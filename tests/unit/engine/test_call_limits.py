"""A limiter bounds calls under way, and their rate over all processes."""

from __future__ import annotations

import asyncio

import pytest

from headrace import Event
from headrace.engine.breaker import Breaker
from headrace.engine.call_limits import BURST_SECONDS, Limiter
from headrace.handlers.effect import EffectLimits
from headrace.handlers.subscription import Effect


class Asked(Event, type="asked", topic="asked"):
    """What is asked."""


class Clock:
    """A time that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


async def ask(event: Asked) -> None: ...


def limiter(clock: Clock, concurrency: int = 1_000, per_second: float | None = None) -> Limiter:
    effect = Effect(ask, {}, EffectLimits(concurrency, per_second))
    return Limiter(effect, Breaker("asking", 20, clock), clock)


def test_calls_at_once_are_shared_in_turn() -> None:
    """Whoever waits for longest is woken first, and waits again behind the others."""
    limits, woken = limiter(Clock(), concurrency=1), list[str]()

    def first() -> None:
        woken.append("first")
        limits.take(first)

    def second() -> None:
        woken.append("second")
        limits.take(second)

    assert limits.take(first)
    assert not limits.take(second)
    assert not limits.take(first)
    for _ in range(3):
        limits.give_back()
        limits.take(second if woken[-1] == "first" else first)
    assert woken == ["second", "first", "second"]
    assert limits.in_flight == 1


def test_partition_that_leaves_keeps_no_call_of_others_waiting() -> None:
    """It is woken first, and begins nothing any more."""
    limits, woken = limiter(Clock(), concurrency=1), list[str]()

    def leaving() -> None:
        woken.append("leaving")

    def other() -> None:
        woken.append("other")
        limits.take(other)

    assert limits.take(leaving)
    assert not limits.take(leaving)
    assert not limits.take(other)
    limits.give_back()
    assert woken == ["leaving", "other"]
    assert limits.in_flight == 1


@pytest.mark.parametrize(("partitions", "owned", "expected"), [(4, 4, 100), (4, 1, 25), (10, 3, 30)])
async def test_rate_is_that_of_the_owned_partitions(partitions: int, owned: int, expected: int) -> None:
    clock = Clock()
    limits, begun = limiter(clock, per_second=100), 0
    for number in range(owned):
        limits.join(number, 1 / partitions)
    for _ in range(10_000):
        clock.now += 0.001
        begun += limits.take(_ignore)
    burst = expected * BURST_SECONDS + 1
    assert expected * 10 - 1 <= begun <= expected * 10 + burst


async def test_rate_wakes_those_that_wait() -> None:
    limits, woken = limiter(Clock(), per_second=1_000), asyncio.Event()
    limits.join("a", 1.0)
    while limits.take(woken.set):
        pass
    await asyncio.wait_for(woken.wait(), 30)


def _ignore() -> None: ...
