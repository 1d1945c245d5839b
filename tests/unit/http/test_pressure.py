"""A request that would wait too long until it begins is refused; nothing else is."""

from __future__ import annotations

import asyncio

import pytest

from headrace.http.pressure import ASKED, FIRST_COST_SECONDS, FORGET_SECONDS, KERNEL_SECONDS, Arrival, Pressure
from tests.support.waiting import until

PATH = "/events/thing.made"
FITTING = 20
"""Requests that may wait at once, if each takes FIRST_COST_SECONDS."""


def _pressure() -> Pressure:
    pressure = Pressure(FIRST_COST_SECONDS * FITTING)
    pressure.accepted(PATH)
    return pressure


def _filled(pressure: Pressure) -> list[Arrival]:
    """Return as many as are admitted."""
    admitted = []
    while (arrival := pressure.admit(PATH)) is not None:
        admitted.append(arrival)
    return admitted


def test_those_that_would_wait_too_long_are_refused_and_counted() -> None:
    """As many wait as can be begun in time; the others are refused, and counted once."""
    pressure = _pressure()
    admitted = [pressure.admit(PATH) is not None for _ in range(FITTING + 10)]
    assert admitted == [True] * (FITTING + 1) + [False] * 9
    assert (pressure.take_refused(), pressure.take_refused()) == (9, 0)


def test_there_is_room_again_when_those_that_wait_have_begun() -> None:
    """Each one that begins makes room for another."""
    pressure = _pressure()
    for arrival in _filled(pressure):
        arrival.begins()
        arrival.ends()
    assert pressure.admit(PATH) is not None


def test_a_path_on_which_nothing_was_accepted_is_never_refused() -> None:
    """A team's own routes, and paths that nobody has declared, are not the platform's to refuse."""
    pressure = _pressure()
    _filled(pressure)
    assert all(pressure.admit("/own") for _ in range(1_000))
    assert pressure.admit(PATH) is None


def test_what_a_middleware_holds_waits_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task has begun; what the middleware waits for is no reason to refuse others."""
    now = 100.0
    monkeypatch.setattr("headrace.http.pressure.perf_counter", lambda: now)
    pressure = _pressure()
    for _ in range(20):
        now += 0.4
        held = [pressure.admit(PATH) for _ in range(FITTING)]
        for arrival in held:
            assert arrival is not None
            arrival.begins()
        now += 0.4
        for arrival in held:
            assert arrival is not None
            arrival.ends()


def test_slow_requests_leave_room_for_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many may wait follows from how long they take."""
    now = 100.0
    monkeypatch.setattr("headrace.http.pressure.perf_counter", lambda: now)
    pressure = _pressure()
    for _ in range(1_000):  # each takes twenty times as long as expected
        for arrival in [pressure.admit(PATH), pressure.admit(PATH)]:
            assert arrival is not None
            now += FITTING * FIRST_COST_SECONDS
            arrival.begins()
            arrival.ends()
    assert len(_filled(pressure)) == 2


def test_how_slow_requests_were_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a process that has been slow once would refuse the few requests that come at once on a quiet day."""
    now = 100.0
    monkeypatch.setattr("headrace.http.pressure.perf_counter", lambda: now)
    pressure = _pressure()
    for _ in range(1_000):
        for arrival in [pressure.admit(PATH), pressure.admit(PATH)]:
            assert arrival is not None
            now += FITTING * FIRST_COST_SECONDS
            arrival.begins()
            arrival.ends()
    now += FORGET_SECONDS / 2
    held = _filled(pressure)
    assert len(held) == 2
    assert pressure.is_full()
    for arrival in held:
        arrival.begins()
    now += FORGET_SECONDS + 1
    assert len(_filled(pressure)) == FITTING + 1


def test_a_glance_forgets_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses nothing that would be admitted."""
    now = 100.0
    monkeypatch.setattr("headrace.http.pressure.perf_counter", lambda: now)
    pressure = _pressure()
    _filled(pressure)[0].begins()
    pressure._cost_seconds *= FITTING
    assert pressure.is_full()
    now += FORGET_SECONDS + 1
    assert not pressure.is_full()
    assert pressure.admit(PATH) is not None


def test_late_requests_are_refused_once_others_were_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has stood still accepts what came meanwhile; one that is flooded does not."""
    now = 100.0
    monkeypatch.setattr("headrace.http.pressure.perf_counter", lambda: now)
    pressure = _pressure()
    patience = FIRST_COST_SECONDS * FITTING
    late = 2 * (patience + KERNEL_SECONDS)

    def admits(waited: float) -> bool:
        arrival = pressure.admit(PATH, lambda: waited)
        if arrival is not None:
            arrival.begins()
        return arrival is not None

    assert admits(late)
    now += patience / 2
    assert admits(late)
    now += patience
    assert not admits(late)
    assert admits(patience / 2), "this one came in time"
    now += FORGET_SECONDS + 1
    assert admits(late), "the flood is over"


def test_kernel_is_asked_about_a_sample_until_one_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many requests that come in time most are not asked about; behind a late one each of them is."""
    now, asked, waited = 100.0, 0, 0.0
    monkeypatch.setattr("headrace.http.pressure.perf_counter", lambda: now)
    pressure = _pressure()

    def ask() -> float:
        nonlocal asked
        asked += 1
        return waited

    def admit(times: int) -> None:
        for _ in range(times):
            arrival = pressure.admit(PATH, ask)
            assert arrival is not None
            arrival.begins()
            arrival.ends()

    admit(1 + 5 * ASKED)
    assert asked == 6, "the first one, and one of each ASKED behind it"
    waited = FORGET_SECONDS
    admit(ASKED + 10)
    assert asked == 6 + 11, "each one behind the late one"
    now += FORGET_SECONDS + 1
    waited, asked = 0.0, 0
    admit(2 * ASKED)
    assert asked == 2


def test_requests_in_flight_are_limited_while_the_loop_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have begun, so that none waits; still no more come until some have their answers."""
    now = 100.0
    monkeypatch.setattr("headrace.http.pressure.perf_counter", lambda: now)
    pressure = _pressure()
    pressure._load.lag_seconds, pressure._load.share = FIRST_COST_SECONDS * FITTING, 1.0
    begun = []
    for _ in range(1_000):
        arrival = pressure.admit(PATH)
        assert arrival is not None
        arrival.begins()
        begun.append(arrival)
    now += 2 * FIRST_COST_SECONDS * FITTING
    assert pressure.admit(PATH) is None
    for arrival in begun:
        arrival.ends()
    assert pressure.admit(PATH) is not None


async def test_the_loop_is_measured_while_a_request_is_in_flight() -> None:
    """And no longer, so that an idle process has no timer."""
    pressure = _pressure()

    def is_measured() -> bool:
        pressure.watch(asyncio.get_running_loop())
        return pressure._load.is_watching

    assert not is_measured(), "nothing is in flight"
    arrival = pressure.admit(PATH)
    assert arrival is not None
    assert is_measured()
    arrival.ends()
    await until(lambda: not is_measured(), "it is measured no more")
