"""The deployment's own counters are used only if all of them were seen."""

from __future__ import annotations

from collections import Counter

from headrace.load.counters import Counters, Reading

BEFORE = Reading(Counter(applied=5), claims=0, started=10.0)
AFTER = Reading(Counter(applied=8, skipped=1), claims=6, started=10.0)


def test_counters_are_used_if_the_same_processes_hold_all() -> None:
    assert Counters([], (), frozenset(), 6).since(BEFORE, AFTER) == {"applied": 3, "skipped": 1}


def test_counters_are_unknown_if_a_process_may_be_missing() -> None:
    counters = Counters([], (), frozenset(), 6)
    assert counters.since(BEFORE, AFTER._replace(claims=5)) is None
    assert counters.since(BEFORE, AFTER._replace(started=11.0)) is None
    assert counters.since(None, AFTER) is None
