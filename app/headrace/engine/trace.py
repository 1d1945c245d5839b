"""Hands batches to the tracer, each as one value of plain numbers with a link per event."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from opentelemetry.trace import Span

from headrace.cloudevents import decode_record
from headrace.effects.calls import Call
from headrace.engine.claim import Claim
from headrace.engine.effects import Effects
from headrace.errors import FencedError
from headrace.handlers.subscription import Handler
from headrace.item import APPLIED, DEAD, PARKED, SKIPPED, Item
from headrace.ledger.rows import Kind
from headrace.telemetry.facts import BatchFacts, CallFacts, EventFacts, EventLink, HandlerCall
from headrace.telemetry.links import notable, thinned
from headrace.telemetry.tracing import Tracing
from headrace.timers.store import FiredTimer


class Called(NamedTuple):
    """One call of a handler that may get a span, as the run notes it: few of them become facts."""

    item: Item
    handler: Handler
    seconds: float
    ended_ns: int
    error_type: str | None = None


def trace_batch(tracing: Tracing, facts: BatchFacts, effects: Effects) -> Span | None:
    """Record a committed batch and what happened to single events; return the batch's span if it is kept."""
    parked = effects.total(PARKED)
    span = tracing.batch(
        facts._replace(
            applied=effects.total(APPLIED),
            skipped=effects.total(SKIPPED),
            parked=parked,
            rows=sum(len(rows) for rows in effects.states.values()),
            error_type="parked" if parked else None,
        )
    )
    for event in _events(facts.subscription, effects, facts.ended_ns):
        tracing.event(event)
    return span


def trace_fenced(tracing: Tracing, claim: Claim, items: Sequence[Item], started_ns: int, ended_ns: int) -> None:
    """Record a batch that was refused, because another owner holds the claim."""
    tracing.batch(batch_facts(claim, items, started_ns, ended_ns)._replace(error_type=FencedError.__name__))


def batch_facts(
    claim: Claim, items: Sequence[Item], started_ns: int, ended_ns: int, calls: Sequence[Called] = ()
) -> BatchFacts:
    """Return whose batch it was, what it took and when. Times are nanoseconds since the epoch."""
    ends = (items[0].record.offset, items[-1].record.offset) if items else (claim.next_offset,) * 2
    linked, dropped = thinned(_sampled(items))  # first: a link costs as much as a handler's call
    name, source = claim.group.partition(".")[2], claim.partition
    links = [link_of(item) for item in linked]
    chosen, calls_dropped = notable(calls)
    return BatchFacts(
        *(name, source.topic, source.partition, claim.epoch, *ends, started_ns, ended_ns, links),
        calls=[_handler_call(call) for call in chosen],
        links_dropped=dropped,
        calls_dropped=calls_dropped,
    )


def _handler_call(call: Called) -> HandlerCall:
    started_ns = call.ended_ns - round(call.seconds * 1e9)
    return HandlerCall(call.handler.name, link_of(call.item), started_ns, call.ended_ns, call.error_type)


def link_of(item: Item) -> EventLink:
    """Return how a span points to the item's event."""
    envelope = item.envelope
    return EventLink(envelope.traceparent, envelope.tracestate, envelope.id, item.record.offset, item.outcome.value)


def _sampled(items: Sequence[Item]) -> list[Item]:
    """Return those whose trace is kept."""
    return [item for item in items if item.is_sampled]


def trace_timers(tracing: Tracing, subscription: str, fired: Sequence[FiredTimer]) -> None:
    """Record the timers that have fired; how late each was is its `waited_seconds`."""
    if not tracing.enabled:
        return
    at_ns = time.time_ns()
    for timer in fired:
        envelope, _ = decode_record(timer.record)
        event = EventLink(envelope.traceparent, envelope.tracestate, envelope.id, None, "fired")
        late = max(0.0, timer.late_seconds)
        tracing.event(EventFacts("timer", subscription, timer.record.topic, event, at_ns, waited_seconds=late))


def call_facts(call: Call, subscription: str) -> CallFacts:
    """Return whose call begins now, and for which event."""
    record, started_ns = call.item.record, time.time_ns()
    waited = max(0.0, (started_ns / 1e6 - record.timestamp) / 1000)
    attempt, event = call.attempts + 1, link_of(call.item)
    return CallFacts(call.effect.handler.name, subscription, record.topic, event, started_ns, attempt, waited)


def _events(subscription: str, effects: Effects, at_ns: int) -> Iterator[EventFacts]:
    for item in effects.parked:
        error_type = type(item.error.__cause__ or item.error).__name__ if item.error is not None else None
        yield EventFacts("park", subscription, item.record.topic, link_of(item), at_ns, error_type)
    for item, attempt in effects.dead:
        reason = item.outcome.value
        yield EventFacts("dead_letter", subscription, item.record.topic, link_of(item), at_ns, reason, attempt)
    for item in effects.released if effects.kind is not Kind.BATCH else ():
        if item.outcome not in DEAD:
            waited = max(0.0, (at_ns / 1e6 - item.record.timestamp) / 1000)
            topic = item.record.topic
            yield EventFacts("release", subscription, topic, link_of(item), at_ns, None, item.attempt, waited)
