"""Requests in flight are limited while the event loop makes their answers late, and only then."""

from __future__ import annotations

from collections import deque

from headrace.http.concurrency import BUSY_SHARE, IDLE_SECONDS, LAGS, LEAST, ConcurrencyLimit
from headrace.http.loop_load import LoopLoad

MOST_SECONDS = 0.25
LONG = MOST_SECONDS / 10
"""What a busy loop lags."""
LATE = 2 * MOST_SECONDS


class _Flood:
    """Requests that came to a process at 0, while its loop lags."""

    def __init__(self, lag_seconds: float = LONG, requests: int = 100, share: float = 1.0) -> None:
        self.load = LoopLoad()
        self.load.lag_seconds, self.load.share = lag_seconds, share
        self.limit = ConcurrencyLimit(MOST_SECONDS, self.load)
        self.in_flight: deque[object] = deque()
        self.come(requests, 0.0)

    def come(self, requests: int, now: float) -> int:
        """Let requests come; return how many may."""
        for come in range(requests):
            if self.limit.is_reached(now):
                return come
            self.in_flight.append(object())
            self.limit.comes(self.in_flight[-1], now)
        return requests

    def end(self, requests: int, now: float) -> None:
        """Answer the first ones."""
        for _ in range(requests):
            self.limit.ends(self.in_flight.popleft(), now)


def test_late_answers_of_a_busy_loop_leave_room_for_fewer() -> None:
    """Once for all that came before, so that seven tenths of them may be in flight."""
    flood = _Flood()
    flood.end(20, LATE)
    assert flood.come(1, LATE) == 0, "80 are in flight, and 70 may be"
    flood.end(20, LATE)
    assert flood.come(100, LATE) == 10


def test_what_waits_for_too_long_is_not_waited_for() -> None:
    """The first answers of a flood come when far too many are in flight already."""
    assert _Flood().come(1, LATE) == 0


def test_a_slow_client_in_front_hides_nobody() -> None:
    """One that sends its body for seconds waits for something else; those behind it are late."""
    flood = _Flood(requests=1)
    assert flood.come(100, 2.0) == 100
    assert flood.come(1, 2.0 + LATE) == 0


def test_requests_that_came_after_a_cut_may_cut_again() -> None:
    """Until answers come in time."""
    flood = _Flood(requests=1_000)
    flood.end(500, LATE)
    assert flood.come(1_000, 1.2 * LATE) == 200
    flood.end(500, 1.2 * LATE)
    flood.end(100, 2.2 * LATE)
    assert flood.come(1_000, 2.2 * LATE) == 40


def test_answers_in_time_make_room_again() -> None:
    """A seventh in the time of one answer."""
    flood = _Flood()
    flood.end(100, LATE)
    assert flood.come(100, 2 * LATE) == 70
    flood.end(70, 2 * LATE + MOST_SECONDS / 2)
    assert flood.come(100, 2 * LATE + MOST_SECONDS / 2) == 81


def test_a_slow_log_is_no_reason_to_limit() -> None:
    """Requests that wait for something else than the loop may be many: they cost it nothing meanwhile."""
    flood = _Flood()
    flood.end(1, LAGS * LONG + 0.1)
    assert flood.come(1_000, LAGS * LONG + 0.1) == 1_000


def test_an_idle_loop_has_no_limit() -> None:
    """However long an answer takes, and also if there was a limit before."""
    flood = _Flood()
    flood.end(1, LATE)
    flood.load.lag_seconds = IDLE_SECONDS / 2
    flood.end(1, 2 * LATE)
    assert flood.come(1_000, 2 * LATE) == 1_000


def test_a_loop_that_gets_no_processor_has_no_limit() -> None:
    """It lags, but others keep the machine busy, or the process is throttled."""
    assert _Flood(share=BUSY_SHARE - 0.1).come(1_000, LATE) == 1_000


def test_some_may_always_be_in_flight() -> None:
    """A limit of none would never learn that the flood is over."""
    flood = _Flood(requests=1)
    flood.end(1, LATE)
    assert flood.come(100, LATE) == LEAST


def test_a_limit_ends_with_the_load_though_nothing_is_answered() -> None:
    """What a log holds that has gone away does not shut others out for ever."""
    flood = _Flood()
    assert flood.come(1, LATE) == 0
    flood.load.lag_seconds = flood.load.share = 0.0
    assert flood.come(1_000, 2 * LATE) == 1_000
