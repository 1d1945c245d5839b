"""Sends spans to the collector through a bounded queue and a thread: a dead collector costs spans, never time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler

from headrace.telemetry.own_provider import OwnProvider

Dropped = Callable[[str, int], None]
"""Called when spans are lost, with the reason (`queue_full`, `export_failed`) and how many."""

DEFAULT_QUEUE_SPANS = 2_048


def otlp_provider(service: str, version: str, sampler: Sampler | None, dropped: Dropped) -> OwnProvider:
    """Return a provider that sends to the collector which the `OTEL_EXPORTER_OTLP_...` variables name.

    It is not installed globally: a team that traces its own code installs its own, and Headrace then uses that one.
    """
    own = Resource.create({SERVICE_VERSION: version})
    if str(own.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        own = own.merge(Resource({SERVICE_NAME: service}))
    return OwnProvider(BoundedProcessor(OTLPSpanExporter(), dropped), sampler, own)


class BoundedProcessor(SpanProcessor):
    """Hands spans to the SDK's batch processor as long as it has room, and counts those that are lost."""

    def __init__(self, exporter: SpanExporter, dropped: Dropped) -> None:
        self._limit = _queue_limit()
        self._dropped = dropped
        self._lock = threading.Lock()
        self._waiting = 0
        self._batches = BatchSpanProcessor(_CountingExporter(exporter, self._exported))

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span, or drop it if the queue is full. Never waits."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            has_room = self._waiting < self._limit
            self._waiting += has_room
        if has_room:
            self._batches.on_end(span)
        else:
            self._dropped("queue_full", 1)

    def shutdown(self) -> None:
        """Send what is queued; may wait for the collector (`Tracing.shutdown` bounds it)."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]  # the SDK gives it no types

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is queued now."""
        return self._batches.force_flush(timeout_millis)

    def _exported(self, spans: int, is_kept: bool) -> None:
        with self._lock:
            self._waiting -= spans
        if not is_kept:
            self._dropped("export_failed", spans)


class _CountingExporter(SpanExporter):
    def __init__(self, exporter: SpanExporter, exported: Callable[[int, bool], None]) -> None:
        self._exporter = exporter
        self._exported = exported

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._exported(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _queue_limit() -> int:
    try:
        return max(1, int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, DEFAULT_QUEUE_SPANS)))
    except ValueError:
        return DEFAULT_QUEUE_SPANS  # as the SDK does if it cannot read the number
