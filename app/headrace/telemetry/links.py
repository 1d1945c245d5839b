"""How a span points to the events it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from opentelemetry.trace import Link

from headrace.telemetry import attributes as key
from headrace.telemetry import trace_context
from headrace.telemetry.facts import EventLink

EventT = TypeVar("EventT")

MAX_LINKS = 128
"""Links, and `handle` spans, of one batch at most; the SDK's own limit of links is the same."""


def link_to(event: EventLink) -> Link | None:
    """Return a link to the event's trace; None if the event has no trace."""
    context = trace_context.parse(event.traceparent, event.tracestate)
    if context is None:
        return None
    values: dict[str, str | int] = {key.MESSAGE_ID: event.event_id, key.OUTCOME: event.outcome}
    if event.offset is not None:
        values[key.OFFSET] = event.offset
    return Link(context, values)


def thinned(events: Sequence[EventT], traceparent: Callable[[EventT], str | None]) -> Sequence[EventT]:
    """Return at most 128 events to link to: every n-th one, of the sampled ones if there are any, otherwise of all."""
    if len(events) <= MAX_LINKS:
        return events
    candidates = [event for event in events if trace_context.is_sampled(traceparent(event))] or events
    return candidates[:: -(-len(candidates) // MAX_LINKS)]
