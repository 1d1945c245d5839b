"""Windows: what is in them, when they close, and what becomes of events that come late."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from headrace import Event, Headrace, Window
from headrace.emits.emitter import Emitter
from headrace.errors import ConfigurationError
from headrace.testing import Handlers, assert_exactly_once
from headrace.windows.course import Course
from headrace.windows.kept import KeptWindows
from headrace.windows.windows import Windows

NINE = datetime(2026, 3, 1, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Taken(Event, type="taken", topic="readings", key="sensor"):
    sensor: str
    value: int
    at: datetime


class Summed(Event, type="summed", topic="sums", key="sensor"):
    sensor: str
    start: datetime
    total: int
    events: int


class Missed(Event, type="missed", topic="sums", key="sensor"):
    sensor: str
    value: int


class Sum(BaseModel):
    total: int = 0


def test_window_that_was_forgotten_is_not_lost_in_silence() -> None:
    """Workers stood still for longer than the ttl: the timer finds the first value of the class."""
    course, emit = Course(MINUTE, MINUTE, timedelta(0)), Emitter("s", "sums", {}, 1)
    course.forgets = True
    with pytest.raises(ValueError, match=r"window of 'a' that ends at 2026-03-01 09:00:00.* was forgotten"):
        course.due(KeptWindows(), "a", NINE, emit)
    with pytest.raises(ValueError, match="was forgotten"):  # and the key has gone on
        course.due(KeptWindows(closed_until=NINE - MINUTE, newest=NINE), "a", NINE, emit)
    course.due(KeptWindows(closed_until=NINE, newest=NINE), "a", NINE, emit)


def summing(**shape: Any) -> Headrace:
    """Return a service that sums what sensors have read in each window."""
    events = Headrace("sensors")
    events.declare(Summed, Missed)
    sums = events.windows("sums", Sum, time=lambda event: event.at, **({"size": MINUTE} | shape))

    @sums.on(Taken)
    def add(sum: Sum, event: Taken) -> None:
        sum.total += event.value

    @sums.closed
    def close(sum: Sum, window: Window) -> Summed:
        return Summed(sensor=window.key, start=window.start, total=sum.total, events=window.events)

    @sums.late
    def miss(event: Taken, window: Window) -> Missed:
        return Missed(sensor=event.sensor, value=event.value)

    return events


@pytest.fixture
def handlers() -> Iterator[Handlers]:
    with Handlers(summing(lateness=timedelta(seconds=10))) as made:
        yield made


def taken(seconds: float, value: int = 1, sensor: str = "a") -> Taken:
    return Taken(sensor=sensor, value=value, at=NINE + timedelta(seconds=seconds))


def summed(minute: int, total: int, events: int, sensor: str = "a") -> Summed:
    return Summed(sensor=sensor, start=NINE + MINUTE * minute, total=total, events=events)


def test_window_closes_when_an_event_is_past_its_lateness(handlers: Handlers) -> None:
    handlers.given(taken(0, 1), taken(59.999, 2), taken(60, 4), taken(69.999, 8))
    then = handlers.when(taken(70, 16))
    assert then.emits == [summed(0, total=3, events=2)]
    assert [each.value.total for each in handlers.windows("sums", "a").open] == [28]


def test_event_that_is_late_within_the_limit_is_waited_for(handlers: Handlers) -> None:
    handlers.given(taken(10, 1), taken(65, 4), taken(30, 2))
    assert handlers.when(taken(71, 8)).emits == [summed(0, total=3, events=2)]
    assert handlers.windows("sums", "a").late == 0


def test_event_that_is_too_late_is_counted_and_handed_on(handlers: Handlers) -> None:
    handlers.given(taken(10, 1), taken(75, 4))
    then = handlers.when(taken(59, 2))
    assert then.emits == [Missed(sensor="a", value=2)]
    kept = handlers.windows("sums", "a")
    assert (kept.late, [each.value.total for each in kept.open]) == (1, [4])


def test_event_of_a_window_that_never_opened_is_late_as_well(handlers: Handlers) -> None:
    handlers.given(taken(600))
    assert handlers.when(taken(30)).emits == [Missed(sensor="a", value=1)]


def test_keys_do_not_close_each_others_windows(handlers: Handlers) -> None:
    handlers.given(taken(10, sensor="a"))
    assert handlers.when(taken(600, sensor="b")).emits == []
    assert len(handlers.windows("sums", "a").open) == 1


def test_window_of_a_silent_key_closes_by_its_timer(handlers: Handlers) -> None:
    """At its end, as far as the first event was from it, and `lateness` more."""
    handlers.given(taken(20, 1), taken(50, 2))
    assert handlers.move(seconds=49).emits == []
    assert handlers.move(seconds=2).emits == [summed(0, total=3, events=2)]
    assert handlers.timers == []
    assert handlers.when(taken(55)).emits == [Missed(sensor="a", value=1)], "it does not open again"


def test_window_that_an_event_has_closed_has_no_timer_left(handlers: Handlers) -> None:
    handlers.given(taken(20), taken(600))
    assert [each.event.end for each in handlers.timers] == [NINE + timedelta(minutes=11)]
    assert handlers.move(minutes=5).emits == [summed(10, total=1, events=1)]


def test_sliding_windows_overlap() -> None:
    with Handlers(summing(every=timedelta(seconds=20))) as handlers:
        handlers.given(taken(5, 1), taken(25, 2), taken(45, 4))
        then = handlers.when(taken(300))
        assert [(each.start - NINE, each.total) for each in then.emits] == [
            (timedelta(seconds=seconds), total) for seconds, total in ((0, 7), (20, 6), (40, 4))
        ]
        before = handlers.when(taken(-1))
        assert handlers.windows("sums", "a").late == 1, "an event is counted once, however many windows it missed"
        assert before.emits == [Missed(sensor="a", value=1)]


def test_windows_before_the_first_event_are_not_forgotten() -> None:
    """A sliding window that began before the first event of its key holds it, too."""
    with Handlers(summing(every=timedelta(seconds=20))) as handlers:
        handlers.given(taken(5, 1))
        starts = [each.start - NINE for each in handlers.windows("sums", "a").open]
        assert starts == [timedelta(seconds=seconds) for seconds in (-40, -20, 0)]


def test_envelope_tells_the_time_without_a_function() -> None:
    events = Headrace("sensors")
    events.declare(Summed)
    sums = events.windows("sums", Sum, size=timedelta(days=1))

    @sums.on(Taken)
    def add(sum: Sum, event: Taken) -> None:
        sum.total += event.value

    @sums.closed
    def close(sum: Sum, window: Window) -> None: ...

    with Handlers(events) as handlers:
        now = handlers.when(taken(0)).steps[0].envelope.time
        (window,) = handlers.windows("sums", "a").open
        assert now is not None and window.start <= now < window.end


def test_nothing_is_kept_of_a_key_behind_its_time_to_live() -> None:
    with Handlers(summing(ttl=timedelta(hours=1))) as handlers:
        handlers.given(taken(0))
        handlers.move(minutes=59)
        assert handlers.windows("sums", "a").closed_until is not None
        handlers.move(hours=1)
        assert handlers.windows("sums", "a").closed_until is None


def test_windows_are_proved_exactly_once() -> None:
    events = [taken(seconds, sensor=sensor) for seconds in (0, 30, 70, 20, 130, 5, 300) for sensor in ("a", "b")]
    assert_exactly_once(summing(lateness=timedelta(seconds=10)), events)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"size": timedelta(0)}, "size is above 0"),
        ({"every": timedelta(minutes=2)}, "at most size, so that no event is in no window"),
        ({"lateness": -MINUTE}, "lateness not below 0"),
        ({"size": 60}, "are timedeltas, such as"),
        ({"every": timedelta(milliseconds=1)}, "holds more than 100 windows"),
        ({"ttl": MINUTE}, "would end before a window does"),
    ],
)
def test_wrong_times_are_refused(shape: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        summing(**shape)


def test_windows_that_come_to_nothing_are_refused() -> None:
    events = Headrace("sensors")
    sums: Windows[Sum] = events.windows("sums", Sum, size=MINUTE)

    @sums.on(Taken)
    def add(sum: Sum, event: Taken) -> None: ...

    with pytest.raises(ConfigurationError, match=r"declare both: @sums\.on\(Event\) and @sums\.closed"):
        events.registry.complete()

    @sums.closed
    def close(sum: Sum, window: Window) -> Summed:
        raise NotImplementedError

    with pytest.raises(ConfigurationError, match="windows 'sums': it returns Summed, which the service does not"):
        events.registry.complete()


def test_event_without_a_zone_fails_with_a_sentence() -> None:
    with Handlers(summing()) as handlers, pytest.raises(ValueError, match="has no zone; give it one"):
        handlers.when(Taken(sensor="a", value=1, at=datetime(2026, 3, 1)))  # noqa: DTZ001 - which it is about
