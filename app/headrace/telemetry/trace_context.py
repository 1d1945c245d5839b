"""The W3C trace context as events carry it: the two strings `traceparent` and `tracestate`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from opentelemetry.trace import SpanContext, TraceFlags, get_current_span
from opentelemetry.trace.span import TraceState

from headrace.envelope import Envelope

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_FLAGS_OF = {f"{number:02x}": TraceFlags(number) for number in range(256)}
FLAGS, SAMPLED = slice(54, 55), frozenset("13579bdf")
"""Where the last digit of the flags stands, in every version, and what it is in a trace that is kept."""


class TraceContext(NamedTuple):
    """The two strings that an event carries on."""

    traceparent: str | None
    tracestate: str | None


def brought(envelope: Envelope) -> TraceContext:
    """Return the context that an event has brought."""
    return TraceContext(envelope.traceparent, envelope.tracestate)


def is_sampled(traceparent: str | None) -> bool:
    """Return True if the trace is kept by its beginner: bit 0 of the flags, whatever the others are (2 is `random`)."""
    return traceparent is not None and traceparent[FLAGS] in SAMPLED


def names_sampled(headers: Sequence[tuple[str, bytes]]) -> bool:
    """Return True if the headers of a record that we wrote name a trace that is kept: no need to decode the record."""
    for name, value in headers:
        if name == "traceparent":
            return is_sampled(value.decode())
    return False


def exemplar(traceparent: str | None) -> dict[str, str] | None:
    """Return a histogram's exemplar for a sampled event, else None: a trace that nobody kept leads nowhere."""
    context = parse(traceparent) if is_sampled(traceparent) else None
    return {"trace_id": f"{context.trace_id:032x}"} if context else None


def parse(traceparent: str | None, tracestate: str | None = None) -> SpanContext | None:
    """Return the remote span that the strings name, or None if they name none (the sender's fault is ignored).

    Source: W3C Trace Context Level 2, "Versioning of traceparent": a later version is read as far as it is known.
    """
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    state = TraceState.from_header([tracestate]) if tracestate else None
    context = SpanContext(int(trace_id, 16), int(span_id, 16), True, _FLAGS_OF[flags], state)
    return context if context.is_valid else None


def render(context: SpanContext) -> TraceContext:
    """Return the strings that name the span."""
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return TraceContext(traceparent, context.trace_state.to_header() or None)


def current(_topic: str = "", _envelope: object = None) -> TraceContext:
    """Return the strings that name the current span; nothing if there is none."""
    context = get_current_span().get_span_context()
    return render(context) if context.is_valid else TraceContext(None, None)
