"""The catalogue of metrics is a promise to dashboards and alerts: names, kinds, labels and buckets are pinned."""

from __future__ import annotations

import platform

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headrace.telemetry.metrics import AGE_SECONDS, BATCH_EVENTS, REQUEST_SECONDS, WORK_SECONDS, Metrics, catalogue

STP = "subscription topic partition"
CATALOGUE = {
    "ingest_accepted_total": (Counter, "topic type", None),
    "ingest_rejected_total": (Counter, "reason", None),
    "ingest_duration_seconds": (Histogram, "mode outcome", REQUEST_SECONDS),
    "ingest_batch_events": (Histogram, "mode", BATCH_EVENTS),
    "log_produce_duration_seconds": (Histogram, "topic outcome", REQUEST_SECONDS),
    "log_produce_in_flight": (Gauge, "topic", None),
    "log_fetched_records_total": (Counter, "subscription topic", None),
    "log_fetched_bytes_total": (Counter, "subscription topic", None),
    "topic_partitions": (Gauge, "topic", None),
    "events_applied_total": (Counter, "subscription topic type", None),
    "events_skipped_total": (Counter, "subscription topic reason", None),
    "events_parked_total": (Counter, "subscription topic reason", None),
    "events_dead_lettered_total": (Counter, "subscription topic reason", None),
    "events_stray_total": (Counter, "subscription topic", None),
    "events_conflict_total": (Counter, "subscription topic", None),
    "event_age_seconds": (Histogram, "subscription", AGE_SECONDS),
    "batch_events": (Histogram, "subscription", BATCH_EVENTS),
    "batch_duration_seconds": (Histogram, "subscription outcome", WORK_SECONDS),
    "batch_commit_duration_seconds": (Histogram, "subscription", WORK_SECONDS),
    "batch_reruns_total": (Counter, "subscription cause", None),
    "batch_shrunk_total": (Counter, "subscription reason", None),
    "worker_abandoned_total": (Counter, "subscription reason", None),
    "lag_records": (Gauge, STP, None),
    "lag_held_records": (Gauge, STP, None),
    "oldest_pending_seconds": (Gauge, STP, None),
    "next_offset": (Gauge, STP, None),
    "claim_epoch": (Gauge, STP, None),
    "claims_held": (Gauge, "subscription", None),
    "claim_crash_suspects": (Gauge, "subscription", None),
    "claim_duration_seconds": (Histogram, "subscription", WORK_SECONDS),
    "claim_fenced_total": (Counter, "subscription", None),
    "rebalances_total": (Counter, "subscription cause", None),
    "rebalance_standstill_seconds": (Histogram, "subscription", WORK_SECONDS),
    "client_recreated_total": (Counter, "subscription reason", None),
    "subscription_paused": (Gauge, "subscription", None),
    "lane_keys": (Gauge, "subscription topic", None),
    "lane_events": (Gauge, "subscription topic", None),
    "lane_oldest_seconds": (Gauge, "subscription topic", None),
    "handler_outage": (Gauge, "subscription handler", None),
    "lane_held_keys": (Gauge, "subscription topic", None),
    "lane_full_partitions": (Gauge, "subscription", None),
    "lane_gap_keys": (Gauge, "subscription topic", None),
    "sequence_gaps_total": (Counter, "subscription end", None),
    "lane_released_total": (Counter, "subscription outcome", None),
    "dead_letters_open": (Gauge, "subscription reason", None),
    "dead_letters_decided_total": (Counter, "subscription decision", None),
    "emits_committed_total": (Counter, "subscription topic", None),
    "emits_published_total": (Counter, "subscription topic", None),
    "emits_republished_total": (Counter, "subscription topic", None),
    "emits_refused_total": (Counter, "subscription topic", None),
    "emits_pending": (Gauge, "subscription", None),
    "emits_oldest_pending_seconds": (Gauge, "subscription", None),
    "sagas_open": (Gauge, "saga", None),
    "saga_oldest_open_seconds": (Gauge, "saga", None),
    "sagas_ended_total": (Counter, "saga outcome", None),
    "saga_duration_seconds": (Histogram, "saga outcome", AGE_SECONDS),
    "timers_pending": (Gauge, "subscription", None),
    "timers_due": (Gauge, "subscription", None),
    "timers_fired_total": (Counter, "subscription", None),
    "timers_late_seconds": (Histogram, "subscription", AGE_SECONDS),
    "windows_closed_total": (Counter, "subscription", None),
    "windows_late_total": (Counter, "subscription", None),
    "states_expired_total": (Counter, "subscription state", None),
    "effects_pending": (Gauge, "subscription", None),
    "effects_in_flight": (Gauge, "subscription", None),
    "effects_waiting": (Gauge, "subscription", None),
    "effects_ended_total": (Counter, "subscription effect outcome", None),
    "outbox_pending": (Gauge, "", None),
    "outbox_oldest_pending_seconds": (Gauge, "", None),
    "outbox_published_total": (Counter, "topic", None),
    "outbox_refused_total": (Counter, "topic", None),
    "store_appended_total": (Counter, "stream", None),
    "store_conflicts_total": (Counter, "stream", None),
    "store_loaded_events": (Histogram, "stream", BATCH_EVENTS),
    "projection_rebuild_ratio": (Gauge, "projection", None),
    "projection_rebuild_remaining_records": (Gauge, "projection", None),
    "handler_duration_seconds": (Histogram, "subscription handler kind", WORK_SECONDS),
    "handler_errors_total": (Counter, "subscription handler error", None),
    "handler_running_seconds": (Gauge, "subscription", None),
    "handler_threads_abandoned": (Gauge, "subscription", None),
    "handler_killed_process_total": (Counter, "subscription handler", None),
    "loop_blocked_seconds": (Histogram, "handler", (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)),
    "db_pool_connections": (Gauge, "pool state", None),
    "db_pool_size": (Gauge, "pool", None),
    "db_pool_wait_seconds": (Histogram, "pool", REQUEST_SECONDS),
    "db_errors_total": (Counter, "kind", None),
    "db_commit_unknown_total": (Counter, "subscription resolved", None),
    "dedupe_window_seconds": (Gauge, "subscription", None),
    "dedupe_window_ids": (Gauge, "subscription", None),
    "audit_mismatches": (Gauge, "subscription check", None),
    "audit_last_run_timestamp_seconds": (Gauge, "subscription", None),
    "schema_version": (Gauge, "phase", None),
    "schema_version_expected": (Gauge, "phase", None),
    "drain_duration_seconds": (Histogram, "", WORK_SECONDS),
    "drains_total": (Counter, "outcome", None),
    "trace_spans_dropped_total": (Counter, "reason", None),
    "build_info": (Gauge, "version python role", None),
}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.2.3", role="all")


def test_the_catalogue_is_what_dashboards_and_alerts_rely_on() -> None:
    declared = {metric.name: (metric.kind, " ".join(metric.labels), metric.buckets) for metric in catalogue()}
    assert declared == CATALOGUE


def test_every_metric_follows_the_naming_rules() -> None:
    for metric in catalogue():
        assert metric.name.endswith("_total") == (metric.kind is Counter), metric.name
        assert (metric.kind is Histogram) == (metric.buckets is not None), metric.name
        assert metric.help and not metric.help.endswith("."), metric.name
        if "partition" in metric.labels:
            assert metric.kind is Gauge, f"{metric.name}: a counter with a partition loses increments when it moves"


def test_every_metric_is_exposed_under_its_name_with_the_prefix(metrics: Metrics) -> None:
    for metric in catalogue():
        attribute = getattr(metrics, metric.name)
        child = attribute.labels(**dict.fromkeys(metric.labels, "x")) if metric.labels else attribute
        child.observe(1) if metric.kind is Histogram else child.inc()
    exposed, _ = metrics.render(None)
    for metric in catalogue():
        suffix = "_count" if metric.kind is Histogram else ""
        assert f"\nheadrace_{metric.name}{suffix}" in exposed.decode(), metric.name


def test_build_info_says_what_runs(metrics: Metrics) -> None:
    labels = {"version": "1.2.3", "python": platform.python_version(), "role": "all"}
    assert metrics.registry.get_sample_value("headrace_build_info", labels) == 1


def test_process_and_garbage_collector_are_included(metrics: Metrics) -> None:
    exposed = metrics.render(None)[0].decode()
    assert "process_resident_memory_bytes" in exposed
    assert "python_gc_collections_total" in exposed


def test_a_registry_that_is_given_is_filled() -> None:
    registry = CollectorRegistry()
    Metrics(registry, version="1", role="worker").drains_total.labels(outcome="clean").inc()
    assert registry.get_sample_value("headrace_drains_total", {"outcome": "clean"}) == 1


def test_two_platforms_in_one_process_do_not_share_metrics() -> None:
    first, second = Metrics(version="1", role="all"), Metrics(version="1", role="all")
    first.drains_total.labels(outcome="clean").inc()
    assert second.registry.get_sample_value("headrace_drains_total", {"outcome": "clean"}) is None


def test_no_created_series_are_exposed(metrics: Metrics) -> None:
    metrics.claim_fenced_total.labels(subscription="wallets").inc()
    metrics.event_age_seconds.labels(subscription="wallets").observe(1)
    for accept in (None, "application/openmetrics-text; version=1.0.0"):
        assert b"_created" not in metrics.render(accept)[0]


def test_openmetrics_with_exemplars_is_given_to_who_asks_for_it(metrics: Metrics) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    metrics.event_age_seconds.labels(subscription="wallets").observe(0.2, exemplar={"trace_id": trace_id})
    asked, content_type = metrics.render("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3")
    assert content_type.startswith("application/openmetrics-text")
    assert trace_id.encode() in asked
    assert asked.endswith(b"# EOF\n")


@pytest.mark.parametrize("accept", [None, "", "*/*", "text/html", "nonsense;;;,="])
def test_plain_text_without_exemplars_is_given_to_everybody_else(metrics: Metrics, accept: str | None) -> None:
    metrics.event_age_seconds.labels(subscription="wallets").observe(0.2, exemplar={"trace_id": "ab" * 16})
    plain, content_type = metrics.render(accept)
    assert content_type.startswith("text/plain")
    assert b"ab" * 16 not in plain


def test_a_handler_gets_twenty_error_classes_and_then_other(metrics: Metrics) -> None:
    errors = [type(f"Error{n}", (Exception,), {})() for n in range(25)]
    labels = [metrics.error_label("credit", error) for error in errors]
    assert labels == [f"Error{n}" for n in range(20)] + ["other"] * 5
    assert metrics.error_label("credit", errors[3]) == "Error3"
    assert metrics.error_label("debit", errors[24]) == "Error24"


def test_a_partition_that_left_takes_its_gauges_along(metrics: Metrics) -> None:
    gauges = [metric.name for metric in catalogue() if "partition" in metric.labels]
    for name in gauges:
        for partition in (0, 1):
            getattr(metrics, name).labels("wallets", "wallets", partition).set(7)
    metrics.forget_partition("wallets", "wallets", 0)
    metrics.forget_partition("wallets", "wallets", 5)
    for name in gauges:
        values = [
            metrics.registry.get_sample_value(
                f"headrace_{name}", {"subscription": "wallets", "topic": "wallets", "partition": partition}
            )
            for partition in ("0", "1")
        ]
        assert values == [None, 7], name
