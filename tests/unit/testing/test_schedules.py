"""Whatever is tried may happen: every event is there, and the events of a key come in the order of the log."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from headrace.testing.exactly_once.schedule import Batch, Schedule, by_chance, fitted, one_by_one, schedules, simpler

logs = st.lists(st.sampled_from("abc"), min_size=1, max_size=12).map(
    lambda keys: {f"{number}": key for number, key in enumerate(keys)}
)


def may_happen(schedule: Schedule, keys: dict[str, str]) -> bool:
    """True if the schedule has every event, first copies in the order of their key, and no copy before its event."""
    first = list(dict.fromkeys(label for batch in schedule for label in batch.events))
    return sorted(first) == sorted(keys) and all(
        [label for label in first if keys[label] == key] == [label for label in keys if keys[label] == key]
        for key in keys.values()
    )


@given(logs, st.integers(0, 1_000))
def test_every_schedule_may_happen(keys: dict[str, str], seed: int) -> None:
    assert all(may_happen(schedule, keys) for schedule in schedules(keys, seed=seed, runs=5))


@given(logs, st.integers(0, 1_000))
def test_every_simpler_schedule_may_happen(keys: dict[str, str], seed: int) -> None:
    schedule = by_chance(keys, random.Random(seed))
    assert all(may_happen(each, keys) for each in simpler(schedule, list(keys)))


@given(logs, st.integers(0, 1_000), st.data())
def test_schedule_fits_a_log_with_fewer_events(keys: dict[str, str], seed: int, data: st.DataObject) -> None:
    schedule = by_chance(keys, random.Random(seed))
    left = data.draw(st.sets(st.sampled_from(list(keys))))
    rest = {label: key for label, key in keys.items() if label not in left} | {"new": "a"}
    assert may_happen(fitted(schedule, rest), rest)


def test_same_seed_makes_the_same_schedules() -> None:
    keys = {"1": "a", "2": "b", "3": "a"}
    assert list(schedules(keys, seed=1, runs=9)) == list(schedules(keys, seed=1, runs=9))
    assert list(schedules(keys, seed=1, runs=9)) != list(schedules(keys, seed=2, runs=9))


def test_simplest_schedule_has_nothing_simpler() -> None:
    assert [each for each in simpler(one_by_one(["1"]), ["1"]) if each != (Batch(("1",)),)] == []
