"""A schedule says when it is next, and what cannot be one is refused in a sentence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from headrace import Event, Headrace
from headrace.cloudevents import decode_record
from headrace.errors import ConfigurationError
from headrace.timers.schedule import Schedule
from tests.support.emitting import Echoed

NINE = Schedule("/notebook/notes", Echoed(page="a"), "0 9 * * mon-fri", "Europe/Berlin")


def test_next_time_follows_zone_and_summer_time() -> None:
    friday = datetime(2026, 3, 27, 8, 0, tzinfo=UTC)  # nine in winter
    assert NINE.after(friday) == datetime(2026, 3, 30, 7, 0, tzinfo=UTC), "summer begins at the weekend"


def test_event_of_a_time_has_the_same_id_in_every_process() -> None:
    again = Schedule("/notebook/notes", Echoed(page="a"), "0 9 * * mon-fri", "Europe/Berlin")
    time, later = datetime(2026, 3, 30, 7, 0, tzinfo=UTC), datetime(2026, 3, 31, 7, 0, tzinfo=UTC)
    ids = [decode_record(each.timer(at).record)[0].id for each in (NINE, again) for at in (time, later)]
    assert ids[:2] == ids[2:]
    assert ids[0] != ids[1]
    assert decode_record(NINE.timer(time).record)[0].time == time


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((Echoed, "0 9 * * *", "UTC"), r"it takes an event, such as Echoed\(\)"),
        ((Echoed(page="a"), "0 9 * *", "UTC"), "its fields are minute, hour"),
        ((Echoed(page="a"), "0 9 * * *", "Berlin"), "no such zone"),
    ],
)
def test_what_is_no_schedule_is_refused(given: tuple[Any, str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Schedule("/notebook/notes", *given)


def test_event_of_a_schedule_has_to_be_known() -> None:
    platform = Headrace("notebook")
    notes = platform.subscription("notes")
    notes.schedule(Echoed(page="a"), "0 9 * * *")
    notes.on(Other)(lambda: None)
    with pytest.raises(ConfigurationError, match=r"a schedule: it returns Echoed.*events.declare\(Echoed\)"):
        platform.registry.complete()


class Other(Event, type="other", topic="echoes"): ...
