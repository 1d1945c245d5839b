"""Ages are observed by the batch, and come out as if each had been observed alone."""

from __future__ import annotations

import random

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.samples import Sample

from headrace.engine.report import observe_ages

BOUNDS = (0.01, 0.1, 1.0, 5.0, 60.0)
NOW_MS = 1_800_000_000_000


def samples(histogram: Histogram) -> dict[tuple[str, str], float]:
    found: list[Sample] = [sample for metric in histogram.collect() for sample in metric.samples]
    return {(sample.name, sample.labels.get("le", "")): round(sample.value, 6) for sample in found}


def test_ages_observed_at_once_are_the_ages_observed_one_by_one() -> None:
    one, other = (Histogram("age", "", buckets=BOUNDS, registry=CollectorRegistry()) for _ in range(2))
    randomness = random.Random(7)
    ages = [randomness.choice((0, 9, 10, 11, 100, 999, 1000, 4_999, 5_000, 60_000, 60_001, 10**7)) for _ in range(500)]
    for age in ages:
        one.observe(age / 1000)
    observe_ages(other, NOW_MS, [NOW_MS - age for age in ages])
    assert {key: value for key, value in samples(one).items() if not key[0].endswith("created")} == {
        key: value for key, value in samples(other).items() if not key[0].endswith("created")
    }


def test_record_from_the_future_has_no_age() -> None:
    histogram = Histogram("age", "", buckets=BOUNDS, registry=CollectorRegistry())
    observe_ages(histogram, NOW_MS, [NOW_MS + 5_000])
    assert samples(histogram)["age_bucket", "0.01"] == 1
    assert samples(histogram)["age_sum", ""] == 0
