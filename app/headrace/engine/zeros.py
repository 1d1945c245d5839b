"""Counters that stand at zero before they count: where a series begins at 1, Prometheus sees no increase."""

from __future__ import annotations

from typing import get_args

from headrace.engine.report import ShrinkReason
from headrace.handlers.subscription import Subscription
from headrace.item import DEAD, SKIPPED
from headrace.order.declared import InSequence
from headrace.telemetry.metrics import Metrics

PARKED = ("handler_error", "behind_key", "process_killed", "slow", "held")
ONCE = {
    "batch_reruns_total": ("handler", "infrastructure", "conflict"),
    "batch_shrunk_total": get_args(ShrinkReason),
    "worker_abandoned_total": ("handler", "batch"),
    "db_commit_unknown_total": ("committed", "rolled_back"),
    "lane_released_total": ("applied", "dead_lettered"),
    "dead_letters_decided_total": ("replayed", "discarded"),
    "rebalances_total": ("joined", "revoked"),
    "client_recreated_total": ("stuck",),
}
"""Counters of a subscription with one more label, and its values."""


def begin_at_zero(metrics: Metrics, subscription: Subscription) -> None:
    """Make the counters of a subscription whose labels are known from the start."""
    name = subscription.name
    metrics.claim_fenced_total.labels(name)
    for counter, values in ONCE.items():
        for value in values:
            getattr(metrics, counter).labels(name, value)
    for topic in subscription.topics:
        metrics.events_stray_total.labels(name, topic)
        metrics.events_conflict_total.labels(name, topic)
        for outcome in SKIPPED:
            metrics.events_skipped_total.labels(name, topic, outcome.value)
        for outcome in DEAD:
            metrics.events_dead_lettered_total.labels(name, topic, outcome.value)
        for reason in PARKED:
            metrics.events_parked_total.labels(name, topic, reason)
    if isinstance(subscription.order, InSequence):
        for end in ("went_on", "dead_letter"):
            metrics.sequence_gaps_total.labels(name, end)
    for effect in subscription.effects.values():
        for ended in ("done", "given_up"):
            metrics.effects_ended_total.labels(name, effect.handler.name, ended)
    for handler in subscription.functions:
        metrics.handler_killed_process_total.labels(name, handler.name)
