"""Requests in flight are limited while turns of the event loop make their answers late, and only then."""

from __future__ import annotations

from headrace.http.concurrency import IDLE_SECONDS, LEAST, TURNS, ConcurrencyLimit

MOST_SECONDS = 0.25
LONG = MOST_SECONDS / 10
"""A turn of a busy loop: ten of them take what an answer may take."""


def _flooded(turn_seconds: float, in_flight: int = 100) -> ConcurrencyLimit:
    """Return a limit with so many requests in flight, while turns of the loop take that long."""
    limit = ConcurrencyLimit(MOST_SECONDS)
    for _ in range(100):
        limit.begins(turn_seconds)
    for _ in range(in_flight):
        limit.comes()
    return limit


def _room(limit: ConcurrencyLimit) -> int:
    """Return how many more may come; they do."""
    room = 0
    while not limit.is_reached and room < 1_000:
        limit.comes()
        room += 1
    return room


def test_late_answers_of_a_busy_loop_leave_room_for_fewer() -> None:
    """An answer that takes twice as long as it may halves what is in flight, once for all that came before."""
    limit = _flooded(LONG)
    limit.ends(0.0, 2 * MOST_SECONDS)
    for _ in range(40):
        limit.ends(0.0, 2 * MOST_SECONDS)
    assert limit.is_reached, "59 are in flight, and 50 may be"
    for _ in range(19):
        limit.ends(0.0, 2 * MOST_SECONDS)
    assert _room(limit) == 10


def test_requests_that_came_after_a_cut_may_cut_again() -> None:
    """Until answers come in time."""
    limit = _flooded(LONG)
    limit.ends(0.0, 0.5)
    limit.ends(0.6, 1.1)
    for _ in range(74):
        limit.ends(0.0, 0.5)
    assert _room(limit) == 1


def test_answers_in_time_make_room_again() -> None:
    """A twentieth in the time of one answer."""
    limit = _flooded(LONG)
    limit.ends(0.0, 2 * MOST_SECONDS)
    for _ in range(99):
        limit.ends(1.0, 1.0 + MOST_SECONDS / 2)
    assert 54 <= _room(limit) <= 55


def test_a_slow_log_is_no_reason_to_limit() -> None:
    """Requests that wait for something else than the loop may be many: they cost it nothing meanwhile."""
    limit = _flooded(LONG)
    limit.ends(0.0, TURNS * LONG + 0.1)
    assert _room(limit) == 1_000


def test_an_idle_loop_has_no_limit() -> None:
    """However long an answer takes, and also if there was a limit before."""
    limit = _flooded(LONG)
    limit.ends(0.0, 2 * MOST_SECONDS)
    for _ in range(100):
        limit.begins(IDLE_SECONDS / 2)
    limit.ends(1.0, 2.0)
    assert _room(limit) == 1_000


def test_some_may_always_be_in_flight() -> None:
    """A limit of none would never learn that the flood is over."""
    limit = _flooded(LONG, in_flight=1)
    limit.ends(0.0, 2 * MOST_SECONDS)
    assert _room(limit) == LEAST


def test_a_limit_is_forgotten_when_nothing_begins() -> None:
    """What is held in front of the routes does not shut others out for ever."""
    limit = _flooded(LONG)
    limit.ends(0.0, 2 * MOST_SECONDS)
    limit.forget()
    assert _room(limit) == 1_000
