"""How a span points to the events it is about, and which parts of a large batch get a span."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from typing import TypeVar

from opentelemetry.trace import Link

from headrace.telemetry import attributes as key
from headrace.telemetry.facts import EventLink, HandlerCall
from headrace.telemetry.trace_context import FLAGS, SAMPLED, parse

EventT = TypeVar("EventT")

MAX_LINKS = 128
"""Links of one batch at most, and spans of calls that failed; the SDK's own limit of links is the same."""
MAX_CALLS = 16
"""Spans of calls of one batch that did not fail, at most. To make, encode and send a span costs as much as a dozen
events: with 128 of them, a batch of 3,600 events spent a fifth of its processor time on them (`python -m bench.steps`).
"""


def link_to(event: EventLink) -> Link | None:
    """Return a link to the event's trace; None if the event has no trace."""
    context = parse(event.traceparent, event.tracestate)
    if context is None:
        return None
    values: dict[str, str | int] = {key.MESSAGE_ID: event.event_id, key.OUTCOME: event.outcome}
    if event.offset is not None:
        values[key.OFFSET] = event.offset
    return Link(context, values)


def thinned(events: Sequence[EventT], traceparents: Sequence[str | None]) -> tuple[list[EventT], int]:
    """Return at most 128 of the events that have a trace to link to, and how many of those are left out.

    It is every n-th one: of the sampled events if there are any, otherwise of all.
    """
    traced = len(events) - traceparents.count(None)
    if traced <= MAX_LINKS:
        return [event for event, text in zip(events, traceparents, strict=True) if text is not None], 0
    candidates = [
        event for event, text in zip(events, traceparents, strict=True) if text and text[FLAGS] in SAMPLED
    ] or [event for event, text in zip(events, traceparents, strict=True) if text is not None]
    linked = candidates[:: -(-len(candidates) // MAX_LINKS)]
    return linked, traced - len(linked)


def notable(calls: Sequence[HandlerCall]) -> list[HandlerCall]:
    """Return the calls that get a span: those that failed, up to 128, and the longest of the others, up to 16."""
    failed = [call for call in calls if call.error_type is not None]
    others = [call for call in calls if call.error_type is None]
    if len(others) > MAX_CALLS:
        others = nlargest(MAX_CALLS, others, key=lambda call: call.ended_ns - call.started_ns)
    return failed[:MAX_LINKS] + others
