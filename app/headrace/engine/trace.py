"""Tells a committed batch to the tracer: its span with a link per event, its handler calls, and each event's fate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from opentelemetry.trace import Span

from headrace.engine.claim import Claim
from headrace.engine.commit import BATCH, Effects
from headrace.errors import FencedError
from headrace.item import APPLIED, DEAD, PARKED, SKIPPED, Item
from headrace.telemetry.tracing import EventLink, HandlerCall, Tracing


class Call(NamedTuple):
    """One handler call that deserves a span. Times are nanoseconds since the epoch."""

    item: Item
    started_ns: int
    ended_ns: int
    error_type: str | None


class Times(NamedTuple):
    """When a batch began, began to commit, and was committed. Nanoseconds since the epoch."""

    started_ns: int
    commit_ns: int
    ended_ns: int


def trace_batch(tracing: Tracing, claim: Claim, effects: Effects, calls: Sequence[Call], times: Times) -> Span | None:
    """Record the batch and return its span, where it is kept."""
    subscription, source = claim.group.partition(".")[2], claim.source
    parked = effects.total(PARKED)
    span = tracing.batch(
        subscription=subscription,
        topic=source.topic,
        partition=source.partition,
        epoch=claim.epoch,
        started_ns=times.started_ns,
        ended_ns=times.ended_ns,
        first_offset=effects.items[0].record.offset,
        last_offset=effects.items[-1].record.offset,
        links=[link_of(item) for item in effects.items if item.envelope.traceparent is not None],
        applied=effects.total(APPLIED),
        skipped=effects.total(SKIPPED),
        parked=parked,
        error_type="parked" if parked else None,
        commit=(times.commit_ns, times.ended_ns),
        rows=sum(len(rows) for rows in effects.states.values()),
        calls=[HandlerCall(_handler(c.item), link_of(c.item), c.started_ns, c.ended_ns, c.error_type) for c in calls],
    )
    _trace_fates(tracing, claim, effects, times.ended_ns)
    return span


def trace_fenced(tracing: Tracing, claim: Claim, items: Sequence[Item], started_ns: int, ended_ns: int) -> None:
    """Record a batch that another owner's claim refused."""
    tracing.batch(
        subscription=claim.group.partition(".")[2],
        topic=claim.source.topic,
        partition=claim.source.partition,
        epoch=claim.epoch,
        started_ns=started_ns,
        ended_ns=ended_ns,
        first_offset=items[0].record.offset if items else claim.next_offset,
        last_offset=items[-1].record.offset if items else claim.next_offset,
        links=[link_of(item) for item in items if item.envelope.traceparent is not None],
        applied=0,
        skipped=0,
        parked=0,
        error_type=FencedError.__name__,
    )


def link_of(item: Item) -> EventLink:
    """Return the item as a span tells of it."""
    envelope = item.envelope
    return EventLink(envelope.traceparent, envelope.tracestate, envelope.id, item.record.offset, item.outcome.value)


def _trace_fates(tracing: Tracing, claim: Claim, effects: Effects, at_ns: int) -> None:
    name = claim.group.partition(".")[2]
    for item in effects.parked:
        error = type(item.error.__cause__ or item.error).__name__ if item.error is not None else None
        tracing.parked(name, item.record.topic, link_of(item), at_ns=at_ns, error_type=error)
    for item, attempts in effects.dead:
        tracing.dead_lettered(
            name, item.record.topic, link_of(item), at_ns=at_ns, attempt=attempts, error_type=item.outcome.value
        )
    if effects.kind != BATCH:
        for item in effects.released:
            if item.outcome not in DEAD:
                waited = max(0.0, (at_ns / 1e6 - item.record.timestamp) / 1000)
                tracing.released(
                    name, item.record.topic, link_of(item), at_ns=at_ns, attempt=item.attempt, waited_seconds=waited
                )


def _handler(item: Item) -> str:
    return item.handler.name if item.handler is not None else "-"
