"""Lanes in memory: when a head is due, how long it waits, and what Postgres can hold of an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.lanes import Lane, Lanes, new_lane
from headrace.errors import HandlerError
from headrace.item import Item, Outcome
from headrace.log.ports import StoredRecord
from headrace.log.stored import plain
from headrace.settings import EngineSettings

SETTINGS = EngineSettings(retry_first_seconds=0.5, retry_max_seconds=60.0, retry_attempts=8)


@pytest.mark.parametrize("attempts", [1, 2, 3, 7, 8, 9, 100, 1_024, 1_025, 1_000_000])
def test_back_off_doubles_up_to_its_limit(attempts: int) -> None:
    """Half of it is chance."""
    lanes = Lanes(SETTINGS)
    ceiling = 60.0 if attempts > 7 else 0.5 * 2 ** (attempts - 1)
    waits = [lanes.back_off(attempts) for _ in range(200)]
    assert all(ceiling / 2 <= wait <= ceiling for wait in waits)
    assert max(waits) - min(waits) > ceiling / 4, "keys that failed together would come back together"


def test_lanes_are_due_in_the_order_of_their_time() -> None:
    """At most as many at once as are asked for."""
    lanes = Lanes(SETTINGS)
    lanes.by_key = {f"key-{n}": Lane(due=100.0 + n, since=0.0) for n in (5, 1, 4, 2, 3)}
    assert lanes.due(99.0, 10) == []
    assert lanes.due(103.5, 10) == ["key-1", "key-2", "key-3"]
    assert lanes.due(200.0, 2) == ["key-1", "key-2"]


def test_next_lane_tells_how_long_a_worker_may_rest() -> None:
    lanes = Lanes(SETTINGS)
    assert lanes.seconds_to_next(100.0) is None
    lanes.by_key = {"a": Lane(due=103.0, since=0.0), "b": Lane(due=101.0, since=0.0)}
    assert lanes.seconds_to_next(100.0) == 1.0
    assert lanes.seconds_to_next(102.0) == 0.0


@pytest.mark.parametrize(
    ("outcome", "attempts"),
    [(Outcome.HANDLER_ERROR, 1), (Outcome.DATA_REFUSED, 0), (Outcome.BEHIND_KEY, 0), (Outcome.PROCESS_KILLED, 7)],
)
def test_lane_begins_with_the_runs_that_its_first_event_had(outcome: Outcome, attempts: int) -> None:
    item = Item(StoredRecord("pages", 0, 0, 0, b"a", b"", ()))
    item.failed(outcome, HandlerError("note raised ValueError: a\x00b", "note"))
    lane = new_lane(Lanes(SETTINGS), item)
    assert (lane.attempts, lane.error) == (attempts, "note raised ValueError: a\N{REPLACEMENT CHARACTER}b")
    assert (lane.due - lane.since >= 60.0) == (outcome is Outcome.PROCESS_KILLED)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_made_one_that_postgres_can_hold(text: str) -> None:
    made = plain(text, 20)
    assert "\x00" not in made
    assert len(made) <= 20
    made.encode("utf-8")
