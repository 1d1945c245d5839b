"""Spans around work in progress, as context managers that do nothing if tracing is off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Token
from types import TracebackType
from typing import Self

from opentelemetry import context
from opentelemetry.trace import Span, StatusCode, set_span_in_context

from headrace.envelope import Envelope
from headrace.telemetry import attributes as key
from headrace.telemetry.trace_context import TraceContext, brought

Create = Callable[[str, Envelope], TraceContext]
"""(topic, envelope) -> the context of a span for that event: `Tracing.create`."""

MAX_CREATED = 16
"""Spans `create` of one request at most; its further events carry the request's own context. To make, encode and send a
span costs as much as a dozen events."""


class WorkSpan:
    """The current span while its block runs; an exception that leaves the block is its error."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span | None) -> None:
        self._span = span
        self._token: Token[context.Context] | None = None

    def __enter__(self) -> Self:
        if self._span is not None:
            self._token = context.attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.failed(kind.__name__)
        if self._span is None:
            return
        if self._token is not None:
            context.detach(self._token)
        self._span.end()

    def failed(self, error_type: str) -> None:
        """Mark the work as failed: a class name or one of a few words, never a message."""
        if self._span is not None:
            self._span.set_attribute(key.ERROR_TYPE, error_type)
            self._span.set_status(StatusCode.ERROR)

    def _set(self, name: str, value: str | float) -> None:
        if self._span is not None:
            self._span.set_attribute(name, value)


class CallSpan(WorkSpan):
    """The span around one run of an effect's call, so that what the call does belongs to it.

    `late` makes the span of a call that has none, since its event is not sampled: when it fails.
    """

    __slots__ = ("_late",)

    def __init__(self, span: Span | None, late: Callable[[str], None] | None) -> None:
        super().__init__(span)
        self._late = late

    def failed(self, error_type: str) -> None:
        """Mark the call as failed, and make its span if it has none."""
        if self._late is not None:
            self._late(error_type)
            self._late = None
        super().failed(error_type)


class SendSpan(WorkSpan):
    """The span around one publish."""

    __slots__ = ()

    def published(self, partition: int, offset: int) -> None:
        """Note the position of a single event."""
        self._set(key.PARTITION, str(partition))
        self._set(key.OFFSET, offset)


class IngestSpan(WorkSpan):
    """The span around one HTTP request that brings events."""

    __slots__ = ("_carried", "_create", "_left", "traceparent", "tracestate")

    def __init__(self, span: Span | None, carried: TraceContext, create: Create) -> None:
        super().__init__(span)
        self.traceparent, self.tracestate = self._carried = carried
        self._create = create
        self._left = MAX_CREATED if span is not None and span.is_recording() else 0

    def accepted(self, events: int) -> None:
        """Note how many events were accepted."""
        self._set(key.ACCEPTED, events)

    def contexts(self, topics: Sequence[str], envelopes: Sequence[Envelope]) -> list[TraceContext]:
        """Return the context of each event of a batched request: the one that it brings, else that of `create`."""
        if self._left:
            create = self.create
            pairs = zip(topics, envelopes, strict=True)
            return [create(topic, each) if each.traceparent is None else brought(each) for topic, each in pairs]
        carried = self._carried
        return [carried if each.traceparent is None else brought(each) for each in envelopes]

    def create(self, topic: str, envelope: Envelope) -> TraceContext:
        """Return the context that one event of a batched request carries, if it brings none of its own.

        The context of a span `create <topic>` in a sampled request, for its first 16 events; otherwise the request's.
        """
        if not self._left:
            return self._carried
        self._left -= 1
        return self._create(topic, envelope)

    def carry(self, _topic: str, _envelope: Envelope) -> TraceContext:
        """Return the context that the event of another request carries, if it brings none: the request's own."""
        return self._carried
