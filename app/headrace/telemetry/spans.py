"""Spans around work in progress, as context managers that do nothing where tracing is off."""

from __future__ import annotations

from contextvars import Token
from types import TracebackType
from typing import Protocol, Self

from opentelemetry import context
from opentelemetry.trace import Span, StatusCode, set_span_in_context

from headrace.telemetry import attributes as key
from headrace.telemetry.trace_context import TraceContext

MAX_CREATED = 128
"""Spans `create` of one request at most; its further events carry the request's own context."""


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
        if self._span is None:
            return
        if kind is not None:
            self.failed(kind.__name__)
        if self._token is not None:
            context.detach(self._token)
        self._span.end()

    def failed(self, error_type: str) -> None:
        """Mark the work as failed: a class name or one of a few words, never a message."""
        if self._span is not None:
            self._span.set_attribute(key.ERROR_TYPE, error_type)
            self._span.set_status(StatusCode.ERROR)

    def epoch(self, epoch: int) -> None:
        """Tell which epoch a claim got."""
        self._set(key.EPOCH, epoch)

    def _set(self, name: str, value: str | float) -> None:
        if self._span is not None:
            self._span.set_attribute(name, value)


class SendSpan(WorkSpan):
    """The span around one publish."""

    __slots__ = ()

    def published(self, partition: int, offset: int) -> None:
        """Tell where a single event went."""
        self._set(key.PARTITION, str(partition))
        self._set(key.OFFSET, offset)


class Create(Protocol):
    """`Tracing.create`: record that one event of a batched request was made."""

    def __call__(
        self,
        topic: str,
        *,
        event_id: str,
        source: str,
        type: str,
        subject: str | None = None,
        correlationid: str | None = None,
    ) -> TraceContext: ...


class IngestSpan(WorkSpan):
    """The span around one HTTP request that brings events."""

    __slots__ = ("_create", "_created", "traceparent", "tracestate")

    def __init__(self, span: Span | None, carried: TraceContext, create: Create) -> None:
        super().__init__(span)
        self.traceparent, self.tracestate = carried
        self._create = create
        self._created = 0

    def accepted(self, events: int) -> None:
        """Tell how many events were accepted."""
        self._set(key.ACCEPTED, events)

    def create(
        self,
        topic: str,
        *,
        event_id: str,
        source: str,
        type: str,
        subject: str | None = None,
        correlationid: str | None = None,
    ) -> TraceContext:
        """Return the context that one event of a batch carries, where it brings none of its own.

        A span `create <topic>` in a sampled request, for its first 128 events; else the context of the request.
        """
        if self._span is None or not self._span.is_recording() or self._created >= MAX_CREATED:
            return TraceContext(self.traceparent, self.tracestate)
        self._created += 1
        return self._create(
            topic, event_id=event_id, source=source, type=type, subject=subject, correlationid=correlationid
        )
