"""Counts, traces and logs what the engine does. Every outcome of promise 4 ("nothing silent") passes here."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.trace import Span

from headrace.engine.claim import Claim
from headrace.engine.commit import BATCH, Effects
from headrace.engine.context import EngineContext
from headrace.engine.trace import batch_facts, trace_batch
from headrace.handlers.subscription import Handler, Subscription
from headrace.item import DEAD, PARKED, SKIPPED, Item, Outcome
from headrace.log.partitioner import partition_for
from headrace.telemetry.facts import HandlerCall
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

VERIFIED_KEYS = 100_000


class Reporter:
    """The instruments of one partition number of one subscription."""

    def __init__(
        self,
        context: EngineContext,
        subscription: Subscription,
        partition: int,
        partitions: int,
        touch: Callable[[], None],
    ) -> None:
        self._context = context
        self._metrics = context.metrics
        self._subscription = subscription
        self._name = subscription.name
        self._partition = partition
        self._partitions = partitions
        self._touch = touch
        self._verified: set[str] = set()
        self._children: dict[tuple[str, ...], Any] = {}
        self._logger = logger.bind(subscription=self._name, partition=partition)

    def handled(self, handler: Handler, seconds: float) -> None:
        """One call of a handler took so long (a sample of the calls)."""
        kind = "async" if handler.is_async else "sync"
        self._child("handler_duration_seconds", subscription=self._name, handler=handler.name, kind=kind).observe(
            seconds
        )

    def rerun(self, cause: str, error: BaseException) -> None:
        """A batch is rolled back and runs again."""
        self._child("batch_reruns_total", subscription=self._name, cause=cause).inc()
        if cause == "infrastructure":
            self.waiting(error)

    def waiting(self, error: BaseException) -> None:
        """Postgres is away; the batch waits."""
        self._touch()
        self._logger.warning("waiting for the database", error=str(error))

    def resolved(self, committed: bool) -> None:
        """A connection was lost and the claim told what became of the batch."""
        outcome = "committed" if committed else "rolled_back"
        self._child("db_commit_unknown_total", subscription=self._name, resolved=outcome).inc()

    def strays(self, effects: Effects) -> set[str]:
        """Return, and count, the keys that murmur2 would have put on another partition."""
        if effects.kind != BATCH:
            return set()
        fresh = {item.key for item in effects.items if item.key is not None} - self._verified
        strays = {key for key in fresh if partition_for(key.encode(), self._partitions) != self._partition}
        if len(self._verified) > VERIFIED_KEYS:
            self._verified.clear()
        self._verified |= fresh - strays
        if strays:
            for topic, count in Counter(i.record.topic for i in effects.items if i.key in strays).items():
                self._child("events_stray_total", subscription=self._name, topic=topic).inc(count)
        return strays

    def committed(
        self, claim: Claim, effects: Effects, calls: Sequence[HandlerCall], started_ns: int, commit_ns: int
    ) -> Span | None:
        """A batch is committed. Returns its span, where it is kept."""
        self._touch()
        if not effects.items:
            return None
        ended_ns = time.time_ns()
        name, topic = self._name, claim.source.topic
        self._child("batch_events", subscription=name).observe(len(effects.items))
        self._child("batch_duration_seconds", subscription=name, outcome="committed").observe(
            (ended_ns - started_ns) / 1e9
        )
        self._child("batch_commit_duration_seconds", subscription=name).observe((ended_ns - commit_ns) / 1e9)
        self._count_outcomes(topic, effects)
        self._observe_ages(effects, ended_ns // 1_000_000)
        for _, record in effects.emits:
            self._child("emits_committed_total", subscription=name, topic=record.topic).inc()
        self._log_failures(effects)
        if not self._context.tracing.enabled:
            return None
        facts = batch_facts(claim, effects.items, started_ns, ended_ns)._replace(commit_ns=commit_ns, calls=calls)
        return trace_batch(self._context.tracing, facts, effects)

    def _count_outcomes(self, topic: str, effects: Effects) -> None:
        name, is_retry = self._name, effects.kind != BATCH
        for (outcome, event_type), count in effects.tally.items():
            if outcome is Outcome.APPLIED:
                self._child("events_applied_total", subscription=name, topic=topic, type=event_type).inc(count)
                if is_retry:
                    self._child("lane_released_total", subscription=name, outcome="applied").inc(count)
            elif outcome in SKIPPED:
                self._child("events_skipped_total", subscription=name, topic=topic, reason=outcome.value).inc(count)
            elif outcome in DEAD:
                self._child("events_dead_lettered_total", subscription=name, topic=topic, reason=outcome.value).inc(
                    count
                )
                if is_retry:
                    self._child("lane_released_total", subscription=name, outcome="dead_lettered").inc(count)
            elif outcome in PARKED and not is_retry:
                reason = "handler_error" if outcome is Outcome.DATA_REFUSED else outcome.value
                self._child("events_parked_total", subscription=name, topic=topic, reason=reason).inc(count)

    def _observe_ages(self, effects: Effects, now_ms: int) -> None:
        if effects.kind != BATCH:
            return
        timestamps = [item.record.timestamp for item in effects.items if item.outcome is Outcome.APPLIED]
        if timestamps:
            observe_ages(self._child("event_age_seconds", subscription=self._name), now_ms, timestamps)

    def _log_failures(self, effects: Effects) -> None:
        """One line per batch, reason and handler: the first failure, and how many there were."""
        failures: dict[tuple[Outcome, str], list[Item]] = {}
        for item in effects.items:
            if item.error is not None:
                failures.setdefault((item.outcome, item.handler.name if item.handler else "-"), []).append(item)
        for (outcome, handler), items in failures.items():
            if outcome in (Outcome.HANDLER_ERROR, Outcome.GAVE_UP):
                for item in items:
                    assert item.error is not None
                    error = self._metrics.error_label(handler, item.error.__cause__ or item.error)
                    self._child("handler_errors_total", subscription=self._name, handler=handler, error=error).inc()
            if outcome is Outcome.PROCESS_KILLED:
                self._child("handler_killed_process_total", subscription=self._name, handler=handler).inc(len(items))
            first = items[0]
            self._logger.warning(
                "dead letter" if outcome in DEAD else "event parked",
                events=len(items),
                reason=outcome.value,
                handler=handler,
                topic=first.record.topic,
                offset=first.record.offset,
                event_id=first.envelope.id if first.is_named else None,
                error_type=type(first.error.__cause__ or first.error).__name__ if first.error else None,
            )

    def fenced(self, error: BaseException) -> None:
        """Another owner holds the claim."""
        self._child("claim_fenced_total", subscription=self._name).inc()
        self._logger.warning("claim lost", error=str(error))

    def _child(self, metric: str, **labels: str) -> Any:
        key = (metric, *labels.values())
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = getattr(self._metrics, metric).labels(**labels)
        return child


def observe_ages(histogram: Any, now_ms: int, timestamps: list[int]) -> None:
    """Observe the age of every timestamp at once: a call per event would cost as much as its handler.

    Uses prometheus-client's own buckets (`_upper_bounds`, `_buckets`, `_sum`), pinned by a test.
    """
    timestamps.sort()
    seen = 0
    for bound, bucket in zip(histogram._upper_bounds, histogram._buckets, strict=True):
        within = len(timestamps) - bisect_left(timestamps, now_ms - bound * 1000)
        if within > seen:
            bucket.inc(within - seen)
        seen = within
    histogram._sum.inc(max(0, now_ms * len(timestamps) - sum(timestamps)) / 1000)
