"""A caller's limit in events a second, on a clock that is moved."""

from __future__ import annotations

import pytest

from headrace.http.caller import Caller
from headrace.http.problems import Problem
from headrace.ingest.rates import MOST_KNOWN, Rates

TILL = Caller("till", ["publish"], events_per_second=10)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def publish(rates: Rates, caller: Caller, events: int = 1) -> bool:
    """Tell whether the caller may."""
    try:
        rates.check(caller)
    except Problem:
        return False
    rates.take(caller, events)
    return True


def test_silent_caller_may_send_the_events_of_a_second_at_once(clock: Clock) -> None:
    rates = Rates(clock)
    assert [publish(rates, TILL) for _ in range(11)] == [True] * 10 + [False]


def test_over_a_longer_time_nobody_gets_more_than_the_limit(clock: Clock) -> None:
    rates, sent = Rates(clock), 0
    for _ in range(1_000):
        clock.now += 0.01
        sent += publish(rates, TILL)
    assert 100 <= sent <= 10 + 100


def test_batch_may_be_larger_than_the_limit_and_is_paid_back(clock: Clock) -> None:
    rates = Rates(clock)
    assert publish(rates, TILL, 100)
    with pytest.raises(Problem) as refused:
        rates.check(TILL)
    assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "10"})
    clock.now += 9.11
    assert publish(rates, TILL)


def test_callers_have_limits_of_their_own(clock: Clock) -> None:
    rates = Rates(clock)
    publish(rates, TILL, 100)
    assert publish(rates, Caller("other", ["publish"], events_per_second=10))
    assert all(publish(rates, Caller("free", ["publish"]), 1_000) for _ in range(100))


def test_memory_is_bounded_and_no_debt_is_forgotten(clock: Clock) -> None:
    rates = Rates(clock)
    publish(rates, TILL, 100)
    for number in range(2 * MOST_KNOWN):
        publish(rates, Caller(f"caller {number}", ["publish"], events_per_second=10))
    assert len(rates._buckets) <= MOST_KNOWN + 1
    assert not publish(rates, TILL)


def test_callers_who_may_publish_again_are_forgotten(clock: Clock) -> None:
    """Slow ones as well: each has waited for its next event when there are too many."""
    rates = Rates(clock)
    for number in range(3 * MOST_KNOWN):
        clock.now += 10.0
        publish(rates, Caller(f"caller {number}", ["publish"], events_per_second=1))
        assert len(rates._buckets) <= MOST_KNOWN + 1


def test_many_who_have_to_wait_are_not_looked_through_each_time(clock: Clock) -> None:
    rates, looks = Rates(clock), 0
    forget = rates._forget

    def look() -> None:
        nonlocal looks
        looks += 1
        forget()

    rates._forget = look  # type: ignore[method-assign]
    for number in range(3 * MOST_KNOWN):
        publish(rates, Caller(f"caller {number}", ["publish"], events_per_second=1))
    assert looks == 2, "at one and at two times MOST_KNOWN"


def test_what_was_not_acknowledged_is_given_back(clock: Clock) -> None:
    rates = Rates(clock)
    assert publish(rates, TILL, 1_000)
    rates.give_back(TILL, 1_000)
    assert [publish(rates, TILL) for _ in range(11)] == [True] * 10 + [False]
