"""When each alert fires, and what just does not make it fire: series as promtool writes them, and when to look."""

from __future__ import annotations

from typing import NamedTuple

LONG = 400
"""Samples of a series."""


class Case(NamedTuple):
    """Series by what they show, and when to look."""

    firing: dict[str, str]
    quiet: dict[str, str]
    minute: int = 60
    interval_minutes: int = 1
    """Between two samples; below the five minutes after which Prometheus takes a series for gone."""
    paused: bool = False
    """True if a pause of the subscription makes the alert quiet."""


S = 'subscription="wallets"'
T = f'{S}, topic="wallets"'
P = f'{T}, partition="0"'


def flat(value: float) -> str:
    return f"{value}x{LONG}"


def rising(step: float, start: float = 0) -> str:
    return f"{start}+{step}x{LONG}"


def falling(step: float, start: float) -> str:
    return f"{start}-{step}x{LONG}"


def jump(value: float, before: str = "_x30") -> str:
    """A counter that appears with its first event, as labelled counters do."""
    return f"{before} {value}x{LONG}"


def freshness(bad: float) -> dict[str, str]:
    """Series of which this share of events is later than five seconds."""
    return {
        f'headrace_event_age_seconds_bucket{{{S}, le="5.0"}}': rising(1000 * (1 - bad)),
        f"headrace_event_age_seconds_count{{{S}}}": rising(1000),
    }


def ingest(bad: float) -> dict[str, str]:
    name = "headrace_ingest_duration_seconds_count"
    return {
        f'{name}{{outcome="failed"}}': rising(10000 * bad),
        f'{name}{{outcome="accepted"}}': rising(10000 * (1 - bad)),
    }


def histogram(name: str, labels: str, fast: str, slow: str, share_slow: float) -> dict[str, str]:
    """A histogram with calls below the bucket `fast` and up to the bucket `slow`."""
    bucket = f"headrace_{name}_bucket"
    return {
        f'{bucket}{{{labels}, le="{fast}"}}': rising(100 * (1 - share_slow)),
        f'{bucket}{{{labels}, le="{slow}"}}': rising(100),
        f'{bucket}{{{labels}, le="+Inf"}}': rising(100),
    }


def position(lag: str, offset: str, held: str = flat(0)) -> dict[str, str]:
    return {
        f"headrace_lag_records{{{P}}}": lag,
        f"headrace_lag_held_records{{{P}}}": held,
        f"headrace_next_offset{{{P}}}": offset,
    }


def partitions(owned: int) -> dict[str, str]:
    lags = {f'headrace_lag_records{{{T}, partition="{number}"}}': flat(0) for number in range(owned)}
    return lags | {'headrace_topic_partitions{topic="wallets"}': flat(6)}


def appears(name: str, labels: str) -> tuple[dict[str, str], dict[str, str]]:
    """A counter that must never move: it appears, or it is as it was."""
    return {f"{name}{{{labels}}}": jump(1)}, {f"{name}{{{labels}}}": flat(1)}


CASES: dict[str, Case] = {
    "IngestBudgetFast": Case(ingest(0.0150), ingest(0.0143)),
    "IngestBudgetSlow": Case(ingest(0.0061), ingest(0.0059)),
    "FreshnessBudgetFast": Case(freshness(0.145), freshness(0.143)),
    "FreshnessBudgetSlow": Case(freshness(0.061), freshness(0.059)),
    "FreshnessBudgetLong": Case(freshness(0.011), freshness(0.009), minute=480, interval_minutes=4),
    "OldestPending": Case(
        {f"headrace_oldest_pending_seconds{{{P}}}": flat(61)},
        {f"headrace_oldest_pending_seconds{{{P}}}": flat(60)},
        paused=True,
    ),
    "LagGrowing": Case(position(rising(10, 2000), flat(5)), position(flat(2000), flat(5)), paused=True),
    "PartitionStuck": Case(position(flat(3), flat(7)), position(flat(3), rising(1)), paused=True),
    "PartitionUnowned": Case(partitions(5), partitions(6)),
    "TwoOwners": Case(
        {f'headrace_claim_epoch{{{P}, pod="a"}}': flat(3), f'headrace_claim_epoch{{{P}, pod="b"}}': flat(4)},
        {f'headrace_claim_epoch{{{P}, pod="a"}}': flat(3)},
    ),
    "FencedOften": Case(
        {f"headrace_claim_fenced_total{{{S}}}": rising(0.6)}, {f"headrace_claim_fenced_total{{{S}}}": rising(0.4)}
    ),
    "RebalanceStorm": Case(
        {f'headrace_rebalances_total{{{S}, cause="revoked"}}': rising(0.8)},
        {
            f'headrace_rebalances_total{{{S}, cause="revoked"}}': rising(0.6),
            f'headrace_rebalances_total{{{S}, cause="joined"}}': rising(5),
        },
    ),
    "StandstillLong": Case(
        histogram("rebalance_standstill_seconds", S, "10.0", "30.0", 0.3),
        histogram("rebalance_standstill_seconds", S, "10.0", "30.0", 0.04),
    ),
    "ClientRecreated": Case(
        {f'headrace_client_recreated_total{{{S}, reason="stuck"}}': rising(0.1)},
        {f'headrace_client_recreated_total{{{S}, reason="stuck"}}': rising(0.05)},
    ),
    "WorkerAbandoned": Case(*appears("headrace_worker_abandoned_total", f'{S}, reason="handler"'), minute=40),
    "PausedLong": Case(
        {f"headrace_subscription_paused{{{S}}}": flat(1)}, {f"headrace_subscription_paused{{{S}}}": flat(0)}, minute=300
    ),
    "HandlerOutage": Case(
        {f'headrace_handler_outage{{{S}, handler="credit"}}': flat(1)},
        {f'headrace_handler_outage{{{S}, handler="credit"}}': flat(0)},
    ),
    "LaneTooOld": Case(
        {f"headrace_lane_oldest_seconds{{{T}}}": flat(901)}, {f"headrace_lane_oldest_seconds{{{T}}}": flat(900)}
    ),
    "LanesGrowing": Case({f"headrace_lane_keys{{{T}}}": rising(1, 101)}, {f"headrace_lane_keys{{{T}}}": flat(101)}),
    "DeadLettersOpen": Case(
        {f'headrace_dead_letters_open{{{S}, reason="decode"}}': flat(1)},
        {f'headrace_dead_letters_open{{{S}, reason="decode"}}': flat(0)},
        minute=90,
    ),
    "Undecodable": Case(
        {f'headrace_events_dead_lettered_total{{{T}, reason="schema"}}': rising(1)},
        {
            f'headrace_events_dead_lettered_total{{{T}, reason="schema"}}': rising(0.6),
            f'headrace_events_dead_lettered_total{{{T}, reason="gave_up"}}': rising(5),
        },
    ),
    "EventsConflict": Case(*appears("headrace_events_conflict_total", T), minute=80),
    "AuditMismatch": Case(
        {f'headrace_audit_mismatches{{{S}, check="ids"}}': flat(1)},
        {f'headrace_audit_mismatches{{{S}, check="ids"}}': flat(0)},
    ),
    "AuditNotRunning": Case(
        {f"headrace_audit_last_run_timestamp_seconds{{{S}}}": flat(0)},
        {f"headrace_audit_last_run_timestamp_seconds{{{S}}}": rising(60)},
        minute=140,
    ),
    "HandlerErrors": Case(
        {
            f'headrace_handler_errors_total{{{S}, handler="credit", error="KeyError"}}': rising(6),
            f'headrace_handler_duration_seconds_count{{{S}, handler="credit", kind="sync"}}': rising(100),
        },
        {
            f'headrace_handler_errors_total{{{S}, handler="credit", error="KeyError"}}': rising(4),
            f'headrace_handler_duration_seconds_count{{{S}, handler="credit", kind="sync"}}': rising(100),
        },
    ),
    "HandlerKillsProcess": Case(*appears("headrace_handler_killed_process_total", f'{S}, handler="credit"'), minute=80),
    "EmitsPending": Case(
        {f"headrace_emits_oldest_pending_seconds{{{S}}}": flat(31)},
        {f"headrace_emits_oldest_pending_seconds{{{S}}}": flat(30)},
    ),
    "TimersLate": Case(
        histogram("timers_late_seconds", S, "30.0", "60.0", 0.1),
        histogram("timers_late_seconds", S, "30.0", "60.0", 0.005),
    ),
    "EffectsFailing": Case(
        {f"headrace_effects_waiting{{{S}}}": flat(1)},
        {f"headrace_effects_waiting{{{S}}}": flat(0), f"headrace_effects_pending{{{S}}}": flat(100)},
    ),
    "WindowsLate": Case(
        {f"headrace_windows_late_total{{{S}}}": rising(6), f"headrace_events_applied_total{{{T}}}": rising(100)},
        {f"headrace_windows_late_total{{{S}}}": rising(4), f"headrace_events_applied_total{{{T}}}": rising(100)},
    ),
    "SagaOverdue": Case(
        {'headrace_saga_oldest_open_seconds{saga="checkout"}': flat(3601)},
        {'headrace_saga_oldest_open_seconds{saga="checkout"}': flat(3600)},
    ),
    "RebuildStalled": Case(
        {'headrace_projection_rebuild_remaining_records{projection="totals"}': flat(1001)},
        {'headrace_projection_rebuild_remaining_records{projection="totals"}': falling(1, 5000)},
    ),
    "StoreConflicts": Case(
        {
            'headrace_store_conflicts_total{stream="account"}': rising(21),
            'headrace_store_loaded_events_count{stream="account"}': rising(100),
        },
        {
            'headrace_store_conflicts_total{stream="account"}': rising(20),
            'headrace_store_loaded_events_count{stream="account"}': rising(100),
        },
    ),
    "EmitsRefused": Case(*appears("headrace_emits_refused_total", T), minute=80),
    "OutboxStuck": Case(
        {"headrace_outbox_oldest_pending_seconds": flat(31)}, {"headrace_outbox_oldest_pending_seconds": flat(30)}
    ),
    "OutboxRefused": Case(*appears("headrace_outbox_refused_total", 'topic="wallets"'), minute=80),
    "LoopBlocked": Case(
        {'headrace_loop_blocked_seconds_count{handler="credit"}': rising(0.6)},
        {'headrace_loop_blocked_seconds_count{handler="credit"}': rising(0.4)},
    ),
    "DatabaseUnavailable": Case(
        {'headrace_db_errors_total{kind="unavailable"}': rising(1)},
        {'headrace_db_errors_total{kind="other"}': rising(1)},
    ),
    "PoolExhausted": Case(
        histogram("db_pool_wait_seconds", 'pool="engine"', "0.5", "1.0", 0.2),
        histogram("db_pool_wait_seconds", 'pool="engine"', "0.5", "1.0", 0.04),
    ),
    "CommitSlow": Case(
        histogram("batch_commit_duration_seconds", S, "0.25", "0.5", 0.1),
        histogram("batch_commit_duration_seconds", S, "0.25", "0.5", 0.005),
    ),
    "SchemaBehind": Case(
        {
            'headrace_schema_version{phase="pre"}': flat(3),
            'headrace_schema_version_expected{phase="pre"}': flat(4),
        },
        {
            'headrace_schema_version{phase="pre"}': flat(4),
            'headrace_schema_version_expected{phase="pre"}': flat(4),
            'headrace_schema_version_expected{phase="post"}': flat(9),
        },
    ),
    "VersionSkew": Case(
        {'headrace_build_info{version="1", pod="a"}': flat(1), 'headrace_build_info{version="2", pod="b"}': flat(1)},
        {'headrace_build_info{version="1", pod="a"}': flat(1), 'headrace_build_info{version="1", pod="b"}': flat(1)},
        minute=90,
    ),
    "DrainCutShort": Case(
        {'headrace_drains_total{outcome="cut_short"}': jump(1)}, {'headrace_drains_total{outcome="clean"}': jump(1)}
    ),
    "SpansDropped": Case(
        {'headrace_trace_spans_dropped_total{reason="queue_full"}': rising(40)},
        {'headrace_trace_spans_dropped_total{reason="queue_full"}': rising(30)},
        minute=90,
    ),
    "MetricsAbsent": Case({}, {'headrace_build_info{version="1"}': flat(1)}),
    "AtMaxReplicas": Case(
        {
            'kube_horizontalpodautoscaler_status_current_replicas{horizontalpodautoscaler="shop-worker-a"}': flat(6),
            'kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler="shop-worker-a"}': flat(6),
            f"headrace_lag_records{{{P}}}": flat(1001),
        },
        {
            'kube_horizontalpodautoscaler_status_current_replicas{horizontalpodautoscaler="shop-worker-a"}': flat(5),
            'kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler="shop-worker-a"}': flat(6),
            f"headrace_lag_records{{{P}}}": flat(1001),
        },
        minute=60,
    ),
}
