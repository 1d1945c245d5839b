"""A rare event is seen when it happens first: its counter stood at zero before."""

from __future__ import annotations

from headrace import Event, Headrace
from headrace.engine.zeros import ONCE, begin_at_zero
from headrace.telemetry.metrics import Metrics, catalogue


class Poured(Event, type="poured", topic="cups", key="who"):
    who: str


def test_counters_of_a_subscription_begin_at_zero() -> None:
    platform = Headrace("bar")
    drinkers = platform.subscription("drinkers")

    @drinkers.on(Poured)
    def pour(event: Poured) -> None: ...

    metrics = Metrics(version="1", role="worker")
    begin_at_zero(metrics, drinkers)
    said = metrics.render(None)[0].decode()
    for series in (
        'events_dead_lettered_total{reason="decode",subscription="drinkers",topic="cups"}',
        'events_skipped_total{reason="duplicate_id",subscription="drinkers",topic="cups"}',
        'events_parked_total{reason="handler_error",subscription="drinkers",topic="cups"}',
        'handler_killed_process_total{handler="pour",subscription="drinkers"}',
        'worker_abandoned_total{reason="batch",subscription="drinkers"}',
        'db_commit_unknown_total{resolved="committed",subscription="drinkers"}',
    ):
        assert f"headrace_{series} 0.0" in said


def test_each_counter_has_a_subscription_and_one_more_label() -> None:
    labels = {metric.name: metric.labels for metric in catalogue()}
    assert {labels[name][0] for name in ONCE} == {"subscription"}
    assert {len(labels[name]) for name in ONCE} == {2}
