"""How a span of finished work is made: by any tracer, or directly, for a provider that is ours.

A tracer makes a span that is running, with a lock and mappings that guard themselves, copies it when it ends, and
cleans each attribute of each link. Where the provider and all that it feeds is ours, nothing of that is needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer

Values = dict[str, str | float]


class Work(NamedTuple):
    """One piece of finished work. Times are nanoseconds since the epoch."""

    name: str
    kind: SpanKind
    values: Values
    links: Sequence[Link]
    started_ns: int
    ended_ns: int
    is_failed: bool = False


class Recorder(Protocol):
    """Makes spans of finished work."""

    def record(self, work: Work, context: Context) -> Span:
        """Make a span, below the one that the context holds, if the sampler keeps it; it is asked in any case.

        Return the span, which is over; its context says whether it is kept.
        """


class RecordingProvider(ABC):
    """A tracer provider that makes spans of finished work without a tracer."""

    @abstractmethod
    def recorder(self, name: str, version: str) -> Recorder:
        """Return what makes them in the name of a library."""


class TracerRecorder:
    """Makes them with a tracer, whosever it is."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def record(self, work: Work, context: Context) -> Span:
        """Make a span by starting and ending it."""
        span = self._tracer.start_span(work.name, context, work.kind, work.values, work.links, work.started_ns)
        if work.is_failed:
            span.set_status(StatusCode.ERROR)
        span.end(work.ended_ns)
        return span
