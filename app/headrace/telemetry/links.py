"""How a span points to the events it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from opentelemetry.trace import Link

from headrace.telemetry import attributes as key
from headrace.telemetry import trace_context
from headrace.telemetry.trace_context import is_sampled

MAX_LINKS = 128
"""Links, and `handle` spans, of one batch at most; the SDK's own limit of links is the same."""


class EventLink(NamedTuple):
    """One event as a batch's span tells of it: its trace, its place in the log, and what became of it."""

    traceparent: str | None
    tracestate: str | None
    event_id: str
    offset: int
    outcome: str


class HandlerCall(NamedTuple):
    """One call of a handler that deserves a span (`Tracing.wants_call`)."""

    handler: str
    event: EventLink
    started_ns: int
    ended_ns: int
    error_type: str | None = None


def link_to(event: EventLink) -> Link | None:
    """Return a link to the event's trace; None where the event has none."""
    context = trace_context.parse(event.traceparent, event.tracestate)
    if context is None:
        return None
    return Link(context, {key.MESSAGE_ID: event.event_id, key.OFFSET: event.offset, key.OUTCOME: event.outcome})


def thinned(links: Sequence[EventLink]) -> Sequence[EventLink]:
    """Return 128 links at most: every n-th, of the sampled events where there are any."""
    if len(links) <= MAX_LINKS:
        return links
    candidates = [link for link in links if is_sampled(link.traceparent)] or links
    return candidates[:: -(-len(candidates) // MAX_LINKS)]
