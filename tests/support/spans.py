"""Spans that go to memory instead of a collector, and what they say."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from headrace.telemetry.providers import MARKS
from headrace.telemetry.sampling import EventSampler
from headrace.telemetry.tracing import EventLink, HandlerCall, Tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01"
UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"
NOW = 1_700_000_000_000_000_000  # nanoseconds


class Spans:
    """A tracing whose spans stay in memory."""

    def __init__(self, entry: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=EventSampler(entry, MARKS), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(system="kafka", server_address="kafka:9092", client_id="pod-1", provider=provider)

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        """Every span that has ended."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the spans of this name."""
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the only span of this name."""
        (span,) = self.named(name)
        return span

    def batch(
        self,
        links: list[EventLink] | None = None,
        *,
        parked: int = 0,
        error_type: str | None = None,
        calls: list[HandlerCall] | None = None,
        commit: tuple[int, int] | None = None,
    ) -> trace.Span | None:
        """Record a batch of three events of the topic `wallets`."""
        return self.tracing.batch(
            subscription="wallets",
            topic="wallets",
            partition=3,
            epoch=7,
            started_ns=NOW,
            ended_ns=NOW + 5_000_000,
            first_offset=10,
            last_offset=12,
            links=links or [],
            applied=2,
            skipped=1,
            parked=parked,
            error_type=error_type,
            commit=commit,
            rows=4,
            calls=calls or [],
        )


def link(traceparent: str | None = SAMPLED, offset: int = 10) -> EventLink:
    """Return what a span of a batch knows of one event."""
    return EventLink(traceparent, None, f"event-{offset}", offset, "applied")


def facts(span: ReadableSpan) -> dict[str, object]:
    """Return the attributes of a span."""
    return dict(span.attributes or {})


def trace_of(span: ReadableSpan) -> str:
    """Return the trace of a span, as a traceparent writes it."""
    assert span.context is not None
    return f"{span.context.trace_id:032x}"
