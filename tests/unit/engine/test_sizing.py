"""How many records a batch takes."""

from __future__ import annotations

import math

from headrace.engine.sizing import FIRST_RECORDS, LEAST_RECORDS, BatchSize


def test_quick_batches_double_up_to_the_most() -> None:
    size = BatchSize(10_000, 2.0)
    taken = []
    for _ in range(6):
        taken.append(size.records)
        size.took(size.records, 0.1)
    assert taken == [FIRST_RECORDS, 2_000, 4_000, 8_000, 10_000, 10_000]


def test_slow_batch_takes_what_fits_into_the_target() -> None:
    size = BatchSize(10_000, 2.0)
    size.took(1_000, 20.0)
    assert size.records == 100
    size.took(1, 60.0)
    assert size.records == 1


def test_refused_batch_is_halved_down_to_one_event() -> None:
    size = BatchSize(10_000, 2.0)
    assert [size.shrink(records) for records in (1_000, 500, 3, 1)] == [500, 250, 1, 1]


def test_limit_of_the_settings_holds_from_the_start() -> None:
    assert BatchSize(7, 2.0).records == 7


def test_batch_ends_about_when_something_else_is_due() -> None:
    size = BatchSize(10_000, target_seconds=2.0)
    assert size.within(0.05) == size.records, "nothing is known of how long a record takes"
    size.took(1_000, 0.1)
    assert (size.within(0.05), size.within(0.0), size.within(math.inf)) == (500, LEAST_RECORDS, size.records)
    assert size.within(60.0) == size.records
    size.took(1, 0.03)
    assert size.within(0.05) == LEAST_RECORDS, "most of it was the commit"
