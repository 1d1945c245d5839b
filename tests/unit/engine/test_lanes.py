"""Lanes in memory: when a head is due, how long it waits, and what Postgres can hold of an error."""

from __future__ import annotations

import math
import time

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.lanes import MOST_ASIDE, Lane, Lanes
from headrace.engine.verdict import Park
from headrace.errors import SequenceGapError
from headrace.handlers.policy import Policy
from headrace.handlers.subscription import Handler
from headrace.item import Item
from headrace.log.ports import StoredRecord
from headrace.log.stored import plain


def policy_of(handler: Handler | None) -> Policy:
    return Policy(attempts=8, first_seconds=0.5, max_seconds=60.0)


def gap(expected: int) -> Lane:
    """Return a lane that waits for the event of a place, for long."""
    return Lane(due=1e12, since=0.0, events=2, error_type=SequenceGapError.__name__, expected=expected)


def joining(key: str, place: int) -> Item:
    """Return an event that joins the key's lane."""
    return Item(StoredRecord("t", 0, 0, 0, key.encode(), b"", []), key=key, place=place)


def test_retries_of_keys_that_failed_together_are_spread() -> None:
    """Chance takes off a part of a delay, as large as the policy says."""
    lanes = Lanes(policy_of)
    now = time.time()
    waits = [lanes.due_after(Park(1, 8.0, 0.5)) - now for _ in range(200)]
    assert all(4.0 <= wait <= 9.0 for wait in waits)
    assert 8.0 <= lanes.due_after(Park(1, 8.0)) - now <= 9.0
    assert max(waits) - min(waits) > 2.0, "keys that failed together would come back together"


def test_lanes_are_due_in_the_order_of_their_time() -> None:
    """At most as many at once as are asked for."""
    lanes = Lanes(policy_of)
    lanes.follow({f"key-{n}": Lane(due=100.0 + n, since=0.0) for n in (5, 1, 4, 2, 3)}, (), ())
    assert lanes.take_due(99.0, 10) == []
    assert lanes.take_due(103.5, 2) == ["key-1", "key-2"]
    assert lanes.take_due(103.5, 10) == ["key-3"], "one that was taken is another run's"
    lanes.put_back(["key-2"])
    assert lanes.take_due(200.0, 10, busy={"key-4"}) == ["key-2", "key-5"]
    assert lanes.seconds_to_next(0.0) is None


def test_many_lanes_that_are_due_are_taken_at_once() -> None:
    """An operator has released all of them, and the event loop waits meanwhile."""
    compared = 0

    class Key(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    lanes = Lanes(policy_of)
    lanes.follow({Key(number): Lane(due=100.0 + number, since=0.0) for number in range(1_000)}, (), ())
    assert len(lanes.take_due(2_000.0, 1_000)) == 1_000
    assert compared < 10_000


def test_lane_is_due_when_it_was_last_said_to_be() -> None:
    """What was said before is passed over, also of a lane that has gone."""
    lanes = Lanes(policy_of)
    lanes.follow({key: Lane(due=101.0, since=0.0) for key in "abc"}, (), ())
    lanes.follow({"a": Lane(due=105.0, since=0.0)}, ["b"], ())
    assert lanes.take_due(104.0, 10) == ["c"]
    assert lanes.seconds_to_next(104.0) == 1.0
    assert lanes.take_due(106.0, 10) == ["a"]


def test_what_is_kept_of_due_times_stays_small() -> None:
    lanes = Lanes(policy_of)
    for times in range(5_000):
        lanes.follow({"a": Lane(due=1_000.0 + times, since=0.0)}, (), ())
    assert len(lanes._due) < 2_000
    assert lanes.take_due(1e12, 10) == ["a"]


def test_keys_that_took_long_are_remembered_up_to_a_limit() -> None:
    """The one that took long first is forgotten first."""
    lanes = Lanes(policy_of)
    for number in range(MOST_ASIDE + 2):
        lanes.set_aside(f"key-{number}")
        lanes.set_aside("key-0")
    assert len(lanes.aside) == MOST_ASIDE
    assert "key-0" in lanes.aside
    assert "key-1" not in lanes.aside


def test_next_lane_tells_how_long_a_worker_may_rest() -> None:
    lanes = Lanes(policy_of)
    assert lanes.seconds_to_next(100.0) is None
    lanes.follow({"a": Lane(due=103.0, since=0.0), "b": Lane(due=101.0, since=0.0)}, (), ())
    assert lanes.seconds_to_next(100.0) == 1.0
    assert lanes.seconds_to_next(102.0) == 0.0


def test_held_lane_is_never_due() -> None:
    lanes = Lanes(policy_of)
    lanes.follow({"a": Lane(due=lanes.due_after(Park(0, math.inf)), since=0.0)}, (), ())
    assert lanes.take_due(1e12, 10) == []
    assert lanes.seconds_to_next(0.0) is None


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_made_one_that_postgres_can_hold(text: str) -> None:
    made = plain(text, 20)
    assert "\x00" not in made
    assert len(made) <= 20
    made.encode("utf-8")


def test_filled_gap_is_taken_again_if_its_run_comes_to_nothing() -> None:
    """Postgres was away, or the run had no room for it: the lane itself is due when the gap has lasted too long."""
    lanes = Lanes(policy_of, is_in_sequence=True)
    lanes.follow({"a": gap(expected=12)}, (), ())
    assert lanes.take_due(0.0, 10) == []
    lanes.follow({}, (), [joining("a", 12)])
    for _ in range(3):
        assert lanes.take_due(0.0, 10) == ["a"]
        lanes.put_back(["a"])
    assert lanes.take_due(0.0, 10) == ["a"]
    lanes.follow({"a": gap(expected=13)}, (), ())  # a run has seen it
    lanes.put_back(["a"])
    assert lanes.take_due(0.0, 10) == []


def test_event_that_fills_a_gap_while_the_gap_is_being_found() -> None:
    """It joins a lane whose head runs and waits for nothing yet; the run has not read it, and ends with a gap."""
    lanes = Lanes(policy_of, is_in_sequence=True)
    lanes.follow({"a": Lane(due=100.0, since=0.0, events=1)}, (), ())
    assert lanes.take_due(100.0, 10) == ["a"]
    lanes.follow({}, (), [joining("a", 12)])
    lanes.follow({"a": gap(expected=12)}, (), ())
    lanes.put_back(["a"])
    assert lanes.seconds_to_next(100.0) == 0.0
    assert lanes.take_due(100.0, 10) == ["a"]
    lanes.follow({"a": gap(expected=12)}, (), ())
    assert lanes.take_due(100.0, 10) == [], "the run has read what had joined"


def test_no_gap_is_passed_over_before_the_log_has_been_read() -> None:
    """While it was not read, the missing event may have come; an operator does not wait for that."""
    lanes = Lanes(lambda handler: policy_of(handler)._replace(gap_seconds=60.0), is_in_sequence=True)
    lanes.now = lambda: 1_000.0
    lanes.follow({key: msgspec.structs.replace(gap(expected=12), due=900.0) for key in "ab"}, (), ())
    lanes.stand_still()
    assert (lanes.take_due(1_000.0, 10), lanes.seconds_to_next(1_000.0)) == ([], None)
    lanes.read_on()
    assert (lanes.take_due(1_000.0, 10), lanes.seconds_to_next(1_000.0)) == ([], 60.0)
    lanes.by_key["a"].is_asked = True
    lanes._sort()
    assert lanes.take_due(1_000.0, 10) == ["a"]
    lanes.caught_up()
    assert lanes.seconds_to_next(1_000.0) == 0.0
    assert lanes.take_due(1_000.0, 10, busy={"a"}) == ["b"]
