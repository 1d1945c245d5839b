"""A tracing whose spans stay in memory, and what they hold."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from headrace.envelope import Envelope
from headrace.telemetry.facts import BatchFacts, EventLink, HandlerCall
from headrace.telemetry.own_provider import OwnProvider
from headrace.telemetry.providers import MARKS
from headrace.telemetry.sampling import EventSampler
from headrace.telemetry.tracing import Tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01"
UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"
NOW = 1_700_000_000_000_000_000


class Spans:
    """A tracing whose spans stay in memory."""

    def __init__(self, entry: Sampler = ALWAYS_ON, *, is_own: bool = True) -> None:
        """`is_own`: whether the provider is Headrace's own, or one that an application has installed."""
        self._exporter = InMemorySpanExporter()
        processor, sampler = SimpleSpanProcessor(self._exporter), EventSampler(entry, MARKS)
        provider = OwnProvider(processor, sampler) if is_own else TracerProvider(sampler, shutdown_on_exit=False)
        if not is_own:
            provider.add_span_processor(processor)
        self.tracing = Tracing(system="kafka", server_address="kafka:9092", provider=provider)

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def batch(
        self,
        links: list[EventLink] | None = None,
        *,
        parked: int = 0,
        error_type: str | None = None,
        calls: list[HandlerCall] | None = None,
        commit_ns: int | None = None,
    ) -> trace.Span | None:
        facts = BatchFacts("wallets", "wallets", 3, 7, 10, 12, NOW, NOW + 5_000_000, links or [], 2, 1, parked, 4)
        return self.tracing.batch(facts._replace(error_type=error_type, calls=calls or (), commit_ns=commit_ns))


def link(traceparent: str | None = SAMPLED, offset: int = 10) -> EventLink:
    return EventLink(traceparent, None, f"event-{offset}", offset, "applied")


def envelope(event_id: str, *, subject: str | None = None, correlationid: str | None = None) -> Envelope:
    return Envelope(id=event_id, source="/shop", type="wallet.credited", subject=subject, correlationid=correlationid)


def facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"
