"""What handlers do to timers comes to one change for each timer; what cannot be meant is refused in a sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from headrace.emits.emitter import Emitter
from headrace.errors import ConfigurationError
from headrace.log.ports import NewRecord
from headrace.timers.changes import CancelTimers, Due, SetTimer, due, folded
from tests.support.emitting import Echoed, begin, cause, emitter

SECOND = Due(1.0, None)


def timer(key: str, name: str, due: Due = SECOND) -> SetTimer:
    """Return a timer of the type `echoed`."""
    return SetTimer("echoed", key, name, due, NewRecord("echoes", key.encode(), b"{}", []))


def test_last_set_of_a_name_counts() -> None:
    later = timer("a", "x", Due(2.0, None))
    assert folded([timer("a", "x"), timer("a", "y"), later]).set == [later, timer("a", "y")]


def test_cancel_takes_back_what_was_set_before_it() -> None:
    by_name, all_of_b = CancelTimers("echoed", "a", "x"), CancelTimers("echoed", "b", None)
    before = [timer("a", "x"), timer("a", "y"), timer("b", "x"), timer("b", "y")]
    cancelled, set_ = folded([*before, by_name, all_of_b, timer("b", "x")])
    assert cancelled == [by_name, all_of_b]
    assert set_ == [timer("a", "y"), timer("b", "x")]


def test_two_transactions_write_in_the_same_order() -> None:
    timers = [timer(key, name) for key in "ba" for name in "yx"]
    assert folded(timers).set == folded(reversed(timers)).set == sorted(timers, key=lambda each: each[:3])


def test_timer_of_a_cause_has_the_same_name_in_every_run() -> None:
    names = []
    for _ in range(2):
        emit = emitter()
        begin(emit, cause())
        emit(Echoed(page="a"), after=1.0)
        ((_, change),) = emit.timers
        assert isinstance(change, SetTimer)
        names.append(change.name)
    assert names[0] == names[1]
    assert emit.emitted == []


def test_failed_handler_takes_back_its_timers_alone() -> None:
    emit = emitter()
    first = cause()
    begin(emit, first)
    emit(Echoed(page="a"), after=timedelta(minutes=1))
    begin(emit, cause("2"))
    emit(Echoed(page="b"), after=60, name="b")
    emit.cancel(Echoed, "b", "b")
    emit.undo()
    assert [item for item, _ in emit.timers] == [first]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"after": 1.0, "at": datetime.now(UTC)}, "one of the two"),
        ({"name": "x"}, "one of the two"),
        ({"at": datetime.now()}, "has no zone"),  # noqa: DTZ005 - that is the mistake
        ({"after": -1.0}, "from 0 to a hundred years"),
        ({"after": float("nan")}, "from 0 to a hundred years"),
        ({"after": "30s"}, "from 0 to a hundred years"),
        ({"after": timedelta(days=99_999)}, "from 0 to a hundred years"),
        ({"after": 1.0, "name": ""}, "1 to 200 characters"),
        ({"after": 1.0, "name": "a\x00"}, "1 to 200 characters"),
    ],
)
def test_timer_that_cannot_be_meant_is_refused(given: dict[str, Any], said: str) -> None:
    emit = emitter()
    begin(emit, cause())
    with pytest.raises(ConfigurationError, match=said):
        emit(Echoed(page="a"), **given)
    assert (emit.emitted, emit.timers) == ([], [])


def test_cancel_names_a_type_and_happens_in_a_handler() -> None:
    emit: Emitter = emitter()
    with pytest.raises(ConfigurationError, match="outside of a handler"):
        emit.cancel(Echoed, "a")
    begin(emit, cause())
    with pytest.raises(ConfigurationError, match="the class of an event type"):
        emit.cancel(str, "a")


def test_seconds_and_timedelta_mean_the_same() -> None:
    assert due(90, None, None) == due(timedelta(seconds=90), None, None) == Due(90.0, None)


@pytest.mark.parametrize(
    "at",
    [
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
    ],
)
def test_time_that_postgres_cannot_keep_is_refused(at: datetime) -> None:
    with pytest.raises(ConfigurationError, match="a timer is due in one of the years 2 to 9998, in UTC"):
        due(None, at, None)


@pytest.mark.parametrize("name", ["a\x00b", "scan-\udcff.pdf"])
def test_name_that_postgres_cannot_keep_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="a timer's name has 1 to 200 characters of Unicode, without NUL"):
        due(1.0, None, name)
