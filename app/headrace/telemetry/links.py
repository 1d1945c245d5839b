"""How a span points to the events it is about, and which parts of a large batch get a span."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from operator import attrgetter
from typing import Protocol, TypeVar

from opentelemetry.trace import Link

from headrace.telemetry import attributes as key
from headrace.telemetry.facts import EventLink
from headrace.telemetry.trace_context import parse

EventT = TypeVar("EventT")


class Call(Protocol):
    """One call of a handler: how long it took, and what it raised."""

    @property
    def seconds(self) -> float: ...

    @property
    def error_type(self) -> str | None: ...


CallT = TypeVar("CallT", bound=Call)

MAX_LINKS = 128
"""Links of one batch at most, and spans of calls that failed; the SDK's own limit of links is the same."""
MAX_CALLS = 16
"""Spans of calls of one batch that did not fail, and of emits that leave together, at most.

To make, encode and send a span costs as much as a dozen events: with 128 of them, a batch of 3,600 events spent a fifth
of its processor time on them (`python -m bench.steps`).
"""


def link_to(event: EventLink, *, is_one_of_many: bool = False) -> Link | None:
    """Return a link to the event's trace; None if the event has no trace.

    It says which event that is and what became of it if the span is about many events; the span of a single one has
    that in its own attributes. To make and export an attribute costs as much as an event.
    """
    context = parse(event.traceparent, event.tracestate)
    if context is None or not is_one_of_many:
        return Link(context, {}) if context is not None else None
    values: dict[str, str | int] = {key.MESSAGE_ID: event.event_id, key.OUTCOME: event.outcome}
    if event.offset is not None:
        values[key.OFFSET] = event.offset
    return Link(context, values)


def thinned(sampled: Sequence[EventT]) -> tuple[Sequence[EventT], int]:
    """Return every n-th one of more than 128 sampled events, and how many are left out.

    A link to another event leads to a trace that nobody kept, and costs as much as three events: a batch of 35 events
    spent more on its links than on the events.
    """
    linked = sampled[:: -(-len(sampled) // MAX_LINKS) or 1]
    return linked, len(sampled) - len(linked)


def notable(calls: Sequence[CallT]) -> tuple[list[CallT], int]:
    """Return the calls that get a span, and how many do not.

    Those that failed get one, up to 128, and the longest of the others, up to 16.
    """
    failed = [call for call in calls if call.error_type is not None][:MAX_LINKS]
    others = [call for call in calls if call.error_type is None]
    if len(others) > MAX_CALLS:
        others = nlargest(MAX_CALLS, others, key=attrgetter("seconds"))
    chosen = failed + others
    return chosen, len(calls) - len(chosen)
