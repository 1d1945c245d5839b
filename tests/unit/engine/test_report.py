"""What the engine tells is counted and logged; ages are observed by the batch, as if each were observed alone."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.samples import Sample

from headrace import Envelope, Headrace
from headrace.cloudevents import encode_record
from headrace.engine.context import EngineContext
from headrace.engine.effects import Effects
from headrace.engine.failures import OverdueError
from headrace.engine.report import Reporter, ShrinkReason, observe_ages
from headrace.errors import DataRefusedError, RecordTooLargeError
from headrace.item import Item, Outcome
from headrace.ledger.rows import Kind
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.log.ports import StoredRecord
from headrace.settings import Settings
from headrace.telemetry.health import Health
from headrace.telemetry.logging import FIELDS
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.rate_limit import OncePerMinute
from headrace.telemetry.tracing import Tracing

BOUNDS = (0.01, 0.1, 1.0, 5.0, 60.0)
NOW_MS = 1_800_000_000_000
ALERT = encode_record(Envelope(id="alert-1", source="/s", type="overdrawn"), b"{}", topic="alerts", key="ann")


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


class Told:
    """A reporter, its clock, its metrics, and what it logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture, settings: Settings) -> None:
        self.now = 0.0
        self.metrics = Metrics(version="1", role="worker")
        self._caplog = caplog
        platform = Headrace("shop", settings)
        context = EngineContext(
            settings,
            platform.registry,
            MemoryLog(),
            cast(Any, None),  # the reporter asks no database
            self.metrics,
            Tracing(),
            Health(),
            cast(Any, None),  # nor a thread
            "me",
            log_limit=OncePerMinute(lambda: self.now),
        )
        self.reporter = Reporter(context, platform.subscription("wallets"), 3, touch=lambda: None)

    def count(self, metric: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"headrace_{metric}", {"subscription": "wallets", **labels})

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [{"event": record.getMessage(), **getattr(record, FIELDS)} for record in self._caplog.records]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    caplog.set_level(logging.INFO, "headrace")
    return Told(caplog, Settings())


def test_stray_is_told_each_time_and_counted(told: Told) -> None:
    """A key is a stray if murmur2 would have put it on another partition than this one, which is number 3."""
    told.reporter.partition_count = 6
    keys = [f"page-{number}" for number in range(30)]
    strays = {key for key in keys if partition_for(key.encode(), 6) != 3}
    assert 0 < len(strays) < 30
    items = [Item(StoredRecord("pages", 3, 0, 0, b"", b"", ()), Outcome.APPLIED, key=key) for key in keys]
    for times in (1, 2):
        assert told.reporter.strays(Effects(Kind.BATCH, items, 1, None)) == strays
        assert told.count("events_stray_total", topic="pages") == times * len(strays)
    assert told.reporter.strays(Effects(Kind.RETRY, items, 1, None)) == set()


def test_conflict_is_counted_and_logged_with_both_positions(told: Told) -> None:
    told.reporter.conflict("orders", 7, 19, "order-1")
    (entry,) = told.entries
    assert (entry["topic"], entry["partition"], entry["event_id"]) == ("orders", 3, "order-1")
    assert (entry["first_offset"], entry["second_offset"]) == (7, 19)
    assert told.count("events_conflict_total", topic="orders") == 1


@pytest.mark.parametrize("reason", ["data", "timeout", "memory"])
def test_smaller_batches_are_counted_with_their_reason(told: Told, reason: ShrinkReason) -> None:
    told.reporter.shrunk(reason, 500)
    assert told.count("batch_shrunk_total", reason=reason) == 1
    assert (told.entries[0]["reason"], told.entries[0]["events"]) == (reason, 500)


@pytest.mark.parametrize(("is_cut", "counted"), [(False, 2), (True, None)])
def test_handler_that_is_given_up_on_is_always_logged(told: Told, is_cut: bool, counted: int | None) -> None:
    """Only one that had its whole time counts as hanging."""
    item = Item(StoredRecord("orders", 3, 7, 0, b"a", b"", ()))
    for _ in range(2):
        told.reporter.gave_up(item, OverdueError(item, 30.04, is_cut=is_cut))
    assert told.count("worker_abandoned_total", reason="handler") == counted
    assert [(entry["offset"], entry["seconds"]) for entry in told.entries] == [(7, 30.0)] * 2


def test_refused_emit_is_counted_and_named(told: Told) -> None:
    told.reporter.emit_refused(ALERT, RecordTooLargeError("the event is larger than the topic takes."))
    (entry,) = told.entries
    assert (entry["topic"], entry["event_id"]) == ("alerts", "alert-1")
    assert entry["error"] == "the event is larger than the topic takes."
    assert told.count("emits_refused_total", topic="alerts") == 1


def test_refused_emits_library_error_is_told_by_its_class(told: Told) -> None:
    told.reporter.emit_refused(ALERT, ValueError("ann owes 77"))
    assert (told.entries[0]["error_type"], told.entries[0]["error"]) == ("ValueError", None)


def test_refused_batch_tells_what_postgres_said(told: Told) -> None:
    for _ in range(3):
        error = DataRefusedError("refused")
        error.__cause__ = ValueError("null value in column total")
        told.reporter.rerun("handler", error)
    (entry,) = told.entries
    assert (entry["error_type"], entry["error"]) == ("ValueError", "null value in column total")
    assert told.count("batch_reruns_total", cause="handler") == 3


@pytest.mark.parametrize(
    "tell",
    [
        lambda reporter: reporter.conflict("orders", 7, 19, "order-1"),
        lambda reporter: reporter.shrunk("data", 500),
        lambda reporter: reporter.emit_refused(ALERT, ValueError()),
    ],
)
def test_what_may_come_by_the_thousand_is_logged_once_a_minute(told: Told, tell: Callable[[Reporter], None]) -> None:
    for _ in range(1_000):
        tell(told.reporter)
    assert [entry["held_back"] for entry in told.entries] == [0]
    told.now = 60.0
    tell(told.reporter)
    assert [entry["held_back"] for entry in told.entries] == [0, 999]
