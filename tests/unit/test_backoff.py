"""Waits double from the first to the longest, and chance takes off a part of them."""

from __future__ import annotations

import pytest

from headrace.backoff import Backoff


@pytest.mark.parametrize(
    ("first", "longest", "waits"),
    [
        (0.5, 10.0, [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]),
        (1.0, 8.0, [1.0, 2.0, 4.0, 8.0, 8.0]),
        (5.0, 5.0, [5.0, 5.0, 5.0]),
        (7.0, 3.0, [3.0, 3.0]),
    ],
)
def test_waits_double_up_to_the_longest(first: float, longest: float, waits: list[float]) -> None:
    backoff = Backoff(first, longest)
    assert [backoff.next_seconds() for _ in waits] == waits
    assert [backoff.seconds_after(failures) for failures in range(1, len(waits) + 1)] == waits


def test_success_begins_with_the_first_wait_again() -> None:
    backoff = Backoff(1.0, 60.0)
    assert [backoff.next_seconds() for _ in range(3)] == [1.0, 2.0, 4.0]
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.next_seconds() == 1.0


@pytest.mark.parametrize(
    ("jitter", "chance", "wait"),
    [(0.0, 0.9, 8.0), (0.5, 0.0, 8.0), (0.5, 0.5, 6.0), (0.5, 1.0, 4.0), (1.0, 1.0, 0.0), (0.25, 1.0, 6.0)],
)
def test_jitter_is_the_part_that_chance_may_take_off(jitter: float, chance: float, wait: float) -> None:
    assert Backoff(1.0, 8.0, jitter, chance=lambda: chance).seconds_after(9) == wait


def test_chance_is_asked_anew_for_each_wait() -> None:
    backoff = Backoff(8.0, 8.0, 0.5)
    waits = {backoff.next_seconds() for _ in range(20)}
    assert len(waits) > 1
    assert all(4.0 <= wait <= 8.0 for wait in waits)


def test_endless_failures_wait_the_longest() -> None:
    assert Backoff(0.5, 300.0).seconds_after(10_000_000) == 300.0
