"""Counts, traces and logs what the engine does: every outcome of every event passes here."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from opentelemetry.trace import Span

from headrace.cloudevents import decode_record
from headrace.engine.claim import Claim
from headrace.engine.context import EngineContext
from headrace.engine.effects import Effects
from headrace.engine.failures import OverdueError
from headrace.engine.trace import Called, batch_facts, trace_batch
from headrace.errors import DataRefusedError, HeadraceError, SchemaRegistryError
from headrace.handlers.subscription import Handler, Subscription
from headrace.handlers.verdicts import HandlerVerdict
from headrace.item import DEAD, GIVEN_UP, PARKED, SKIPPED, Item, Outcome
from headrace.ledger.rows import Kind
from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord
from headrace.telemetry.failures import failure_fields
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

VERIFIED_KEYS = 100_000

UNREADABLE = frozenset({Outcome.DECODE, Outcome.SCHEMA, Outcome.UNKNOWN_TYPE})
"""What is wrong with these events may quote their data: the dead letter has it, the log does not."""
ENDED_WAIT = frozenset({Outcome.APPLIED, Outcome.SKIPPED_BY_HANDLER, Outcome.HANDLER_ERROR}) | GIVEN_UP
"""So ends the run of an event that is not held any longer, though events before it are missing."""

ShrinkReason = Literal["data", "timeout", "memory"]


class Reporter:
    """The instruments of one partition number of one subscription."""

    def __init__(
        self,
        context: EngineContext,
        subscription: Subscription,
        partition: int,
        touch: Callable[[], None],
    ) -> None:
        self._context = context
        self._metrics = context.metrics
        self._subscription = subscription
        self._name = subscription.name
        self._partition = partition
        self.partition_count = 1
        """Partitions of the topic, once they are known: they decide which partition a key belongs to."""
        self._touch = touch
        self._verified: set[str] = set()
        self._children: dict[tuple[str, ...], Any] = {}
        self._detail = context.settings.log_handler_errors
        self._logger = logger.bind(subscription=self._name, partition=partition)

    def handled(self, handler: Handler, seconds: float, *, is_effect: bool = False) -> None:
        """A handler was called: observe how long the call took. Called for a sample of the calls."""
        kind = "effect" if is_effect else "async" if handler.is_async else "sync"
        self._child("handler_duration_seconds", subscription=self._name, handler=handler.name, kind=kind).observe(
            seconds
        )

    def rerun(self, cause: str, error: BaseException, item: Item | None = None) -> None:
        """A batch is rolled back and runs again; `item` is the one whose handler raised, if that is known."""
        self._child("batch_reruns_total", subscription=self._name, cause=cause).inc()
        if cause == "infrastructure":
            self.waiting(error)
        elif isinstance(error, DataRefusedError):
            what = "Postgres refused the data of a batch, which runs again in smaller parts"
            self._warn_once_a_minute(what, type(_cause(error)).__name__, **self._of_error(_cause(error)))
        elif cause == "handler" and not isinstance(error.__cause__, HandlerVerdict):
            is_new = self._is_new(item, _cause(error))
            fields = self._of_error(_cause(error), with_traceback=is_new)
            self._logger.warning("a handler raised, its batch runs again event by event", **_of_item(item), **fields)

    def failed(self, item: Item, error: BaseException) -> None:
        """A handler raised in a careful run; its traceback is logged unless one like it was logged within a minute.

        Called in the handler's thread, while the error still has its frames. `committed` logs the outcome.
        """
        self._context.witness(item, error)
        if self._detail == "full" and self._is_new(item, error):
            self._logger.warning("a handler raised", **_of_item(item), **self._of_error(error, with_traceback=True))

    def effect_failed(self, item: Item, error: BaseException) -> None:
        """A call of an effect has failed and is made again; `committed` tells of one that is given up on."""
        handler, error_type = _handler(item), self._metrics.error_label(_handler(item), error)
        self._child("handler_errors_total", subscription=self._name, handler=handler, error=error_type).inc()
        fields = self._of_error(error) | _of_item(item)
        self._warn_once_a_minute("an effect has failed, and is tried again", f"{handler} {error_type}", **fields)

    def waiting(self, error: BaseException) -> None:
        """Postgres or the schema registry is away; the batch waits."""
        self._touch()
        what = "schema registry" if isinstance(error, SchemaRegistryError) else "database"
        self._logger.warning(f"waiting for the {what}", error=str(error))

    def resolved(self, committed: bool) -> None:
        """A connection was lost in COMMIT, and the claim has shown whether the batch was committed."""
        outcome = "committed" if committed else "rolled_back"
        self._child("db_commit_unknown_total", subscription=self._name, resolved=outcome).inc()

    def strays(self, effects: Effects) -> set[str]:
        """Return, and count, the keys that murmur2 would have put on another partition."""
        if effects.kind is not Kind.BATCH:
            return set()
        fresh = {item.key for item in effects.items if item.key is not None} - self._verified
        strays = {key for key in fresh if partition_for(key.encode(), self.partition_count) != self._partition}
        if len(self._verified) > VERIFIED_KEYS:
            self._verified.clear()
        self._verified |= fresh - strays
        if strays:
            for topic, count in Counter(i.record.topic for i in effects.items if i.key in strays).items():
                self._child("events_stray_total", subscription=self._name, topic=topic).inc(count)
        return strays

    def committed(
        self, claim: Claim, effects: Effects, calls: Sequence[Called], started_ns: int, commit_ns: int
    ) -> Span | None:
        """A batch is committed. Returns its span, if it is kept."""
        if not effects.items:
            return None
        ended_ns = time.time_ns()
        name, topic = self._name, claim.partition.topic
        self._child("batch_events", subscription=name).observe(len(effects.items))
        self._child("batch_duration_seconds", subscription=name, outcome="committed").observe(
            (ended_ns - started_ns) / 1e9
        )
        self._child("batch_commit_duration_seconds", subscription=name).observe((ended_ns - commit_ns) / 1e9)
        self._count_outcomes(topic, effects)
        self._report_conflicts(topic, effects)
        self._observe_ages(effects, ended_ns // 1_000_000)
        for emit_topic, count in Counter([record.topic for _, record in effects.emits]).items():
            self._child("emits_committed_total", subscription=name, topic=emit_topic).inc(count)
        for what, count in Counter([what for _, what in effects.counted]).items():
            self._child("windows_late_total" if what == "late" else "windows_closed_total", subscription=name).inc(
                count
            )
        for saga in effects.sagas_ended:
            labels = {"saga": name, "outcome": saga.outcome}
            self._child("sagas_ended_total", **labels).inc()
            self._child("saga_duration_seconds", **labels).observe(saga.seconds)
        for item, _ in effects.dead:
            if item.outcome in UNREADABLE and item.error is not None:
                self._context.witness(item, item.error)
        self._log_failures(effects)
        if self._subscription.order is not None:
            self._report_gaps(effects)
        if not self._context.tracing.enabled:
            return None
        facts = batch_facts(claim, effects.items, started_ns, ended_ns, calls)._replace(commit_ns=commit_ns)
        return trace_batch(self._context.tracing, facts, effects)

    def _report_gaps(self, effects: Effects) -> None:
        """Count the gaps that were not filled in time, and name one."""
        for item in effects.items:
            if item.wait_is_over and item.outcome in ENDED_WAIT:
                end = "dead_letter" if item.outcome is Outcome.GAP else "went_on"
                self._child("sequence_gaps_total", subscription=self._name, end=end).inc()
                what = "events are missing in the sequence of a key, and it does not wait any longer"
                self._warn_once_a_minute(what, end, end=end, sequence=item.place, **_of_item(item))

    def _report_conflicts(self, topic: str, effects: Effects) -> None:
        if effects.total({Outcome.CONFLICTING_ID}):
            for item in effects.items:
                if item.outcome is Outcome.CONFLICTING_ID:
                    self.conflict(topic, item.mark >> 32, item.record.offset, item.envelope.id)

    def conflict(self, topic: str, first_offset: int, second_offset: int, event_id: str) -> None:
        """An event has the identity of an earlier one of its partition and another payload."""
        self._child("events_conflict_total", subscription=self._name, topic=topic).inc()
        self._warn_once_a_minute(
            "two events have the same identity but different data; the second is skipped",
            topic,
            topic=topic,
            first_offset=first_offset,
            second_offset=second_offset,
            event_id=event_id,
        )

    def shrunk(self, reason: ShrinkReason, limit: int) -> None:
        """The next batches take at most `limit` events."""
        self._child("batch_shrunk_total", subscription=self._name, reason=reason).inc()
        self._warn_once_a_minute("batches are made smaller", reason, reason=reason, events=limit)

    def lanes_full(self, keys: int, events: int) -> None:
        """So much is parked that the partition takes no further events."""
        self._warn_once_a_minute(
            "too much is parked, so the partition takes no further events: mend the handler, or retry its lanes",
            "lanes",
            keys=keys,
            events=events,
        )

    def gave_up(self, item: Item, error: OverdueError) -> None:
        """A call of a handler was given up on: at its time limit, or since it takes longer than the others."""
        fields = {**_of_item(item), "seconds": round(error.seconds, 1)}
        if error.is_cut:
            self._logger.warning("a handler takes long, its event runs beside the others", **fields)
            return
        self._child("worker_abandoned_total", subscription=self._name, reason="handler").inc()
        self._logger.error("a handler does not return, its event is taken out", **fields)

    def emit_refused(self, record: NewRecord, error: BaseException) -> None:
        """The log will never take an emitted event."""
        self._child("emits_refused_total", subscription=self._name, topic=record.topic).inc()
        self._warn_once_a_minute(
            "the log refused an emitted event",
            record.topic,
            topic=record.topic,
            event_id=decode_record(record)[0].id,
            error_type=type(error).__name__,
            error=str(error) if isinstance(error, HeadraceError) else None,
        )

    def _count_outcomes(self, topic: str, effects: Effects) -> None:
        name, is_retry = self._name, effects.kind not in (Kind.BATCH, Kind.EFFECT)
        for (outcome, event_type), count in effects.tally.items():
            if outcome is Outcome.APPLIED:
                type_name = event_type.type if event_type is not None else "other"
                self._child("events_applied_total", subscription=name, topic=topic, type=type_name).inc(count)
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
        if effects.kind is not Kind.BATCH:
            return
        applied = Outcome.APPLIED
        timestamps = [item.record.timestamp for item in effects.items if item.outcome is applied]
        if timestamps:
            observe_ages(self._child("event_age_seconds", subscription=self._name), now_ms, timestamps)

    def _log_failures(self, effects: Effects) -> None:
        """Write one entry per outcome, handler and class of error: the first failure, and how many there were."""
        if not effects.total(PARKED | DEAD):
            return
        failures: dict[tuple[Outcome, str, type[BaseException]], list[Item]] = {}
        for item in effects.items:
            if item.error is not None and item.outcome is not Outcome.HELD:
                failures.setdefault((item.outcome, _handler(item), type(_cause(item.error))), []).append(item)
        for (outcome, handler, _), items in failures.items():
            first = items[0]
            assert first.error is not None
            error, count = _cause(first.error), len(items)
            if outcome in (Outcome.HANDLER_ERROR, Outcome.GAVE_UP, Outcome.PERMANENT):
                label = self._metrics.error_label(handler, error)
                self._child("handler_errors_total", subscription=self._name, handler=handler, error=label).inc(count)
            if outcome is Outcome.PROCESS_KILLED:
                self._child("handler_killed_process_total", subscription=self._name, handler=handler).inc(count)
            is_of_team = outcome not in UNREADABLE
            self._logger.warning(
                "dead letter" if outcome in DEAD else "event parked",
                events=count,
                reason=outcome.value,
                **_of_item(first),
                **(self._of_error(error) if is_of_team else {"error_type": type(error).__name__}),
            )

    def fenced(self, error: BaseException) -> None:
        """Another owner holds the claim."""
        self._child("claim_fenced_total", subscription=self._name).inc()
        self._logger.warning("claim lost", error=str(error))

    def _is_new(self, item: Item | None, error: BaseException) -> bool:
        key = (self._name, _handler(item), type(error))
        return self._context.log_limit.held_back(key) is not None

    def _of_error(self, error: BaseException, *, with_traceback: bool = False) -> dict[str, str]:
        return failure_fields(error, self._detail, with_traceback=with_traceback)

    def _warn_once_a_minute(self, what: str, about: str, **fields: Any) -> None:
        held_back = self._context.log_limit.held_back((self._name, what, about))
        if held_back is not None:
            self._logger.warning(what, **fields, held_back=held_back)

    def _child(self, metric: str, **labels: str) -> Any:
        key = (metric, *labels.values())
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = getattr(self._metrics, metric).labels(**labels)
        return child


def _of_item(item: Item | None) -> dict[str, Any]:
    if item is None:
        return {}
    event_id = item.envelope.id if item.is_named else None
    return {
        "handler": _handler(item),
        "topic": item.record.topic,
        "offset": item.record.offset,
        "event_id": event_id,
    }


def _handler(item: Item | None) -> str:
    return item.handler.name if item is not None and item.handler is not None else "-"


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ or error


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
