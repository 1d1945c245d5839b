"""What counts as progress at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from tests.crash.settling import Progress


def seconds_without(*looks: Mapping[str, int]) -> list[float]:
    """Return for how long there is said to be no progress, at looks a second apart."""
    clock = count()
    progress = Progress(lambda: next(clock))
    return [progress.seconds_since(look) for look in looks]


def test_whatever_becomes_less_is_progress() -> None:
    looks = {"lanes": 3, "timers": 2}, {"lanes": 3, "timers": 1}, {"lanes": 2, "timers": 5}, {"lanes": 2, "timers": 5}
    assert seconds_without(*looks) == [1, 0, 0, 1]


def test_what_grows_and_shrinks_again_is_no_progress() -> None:
    assert seconds_without({"timers": 2}, {"timers": 1}, {"timers": 4}, {"timers": 1}, {"timers": 0}) == [1, 0, 1, 2, 0]


def test_what_is_first_seen_later_counts_once_it_becomes_less() -> None:
    looks = {"lanes": 1}, {"lanes": 0, "lag": 9}, {"lag": 9}, {"lag": 8}
    assert seconds_without(*looks) == [1, 0, 1, 0]
