"""When sends are due, and which rates the steps have."""

from __future__ import annotations

import itertools

import pytest

from headrace.load.schedule import due_times, step_rates


def test_constant_arrivals_have_equal_gaps() -> None:
    assert list(due_times("constant", 4, 1, seed=1)) == [0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_have_the_rate_and_differ_in_gaps() -> None:
    times = due_times("poisson", 1000, 10, seed=1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 9_500 < len(times) < 10_500
    assert all(gap >= 0 for gap in gaps)
    assert sum(gap > 0.003 for gap in gaps) == pytest.approx(len(gaps) * 0.0498, rel=0.2)  # e^-3


def test_the_same_seed_makes_the_same_schedule() -> None:
    assert due_times("poisson", 100, 1, seed=7) == due_times("poisson", 100, 1, seed=7)
    assert due_times("poisson", 100, 1, seed=7) != due_times("poisson", 100, 1, seed=8)


def test_steps_grow_up_to_the_last_rate() -> None:
    assert step_rates(100, 2, None) == [100]
    assert step_rates(100, 2, 500) == [100, 200, 400, 500]
