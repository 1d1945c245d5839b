"""The queue to the collector is bounded, and what it loses is counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from headrace.telemetry.exporting import BoundedProcessor, otlp_provider


class GatedExporter(SpanExporter):
    """A collector that answers when it is told to."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.gate = threading.Event()
        self.result = result
        self.names: list[str] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.gate.wait(30)
        self.names += [span.name for span in spans]
        return self.result

    def shutdown(self) -> None:
        self.gate.set()


class Lost(Counter[str]):
    def __call__(self, reason: str, spans: int) -> None:
        self[reason] += spans


def provider_with(processor: BoundedProcessor) -> TracerProvider:
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


@pytest.fixture
def small_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5")


@pytest.mark.usefixtures("small_queue")
def test_spans_beyond_the_queue_are_dropped_and_counted() -> None:
    """Nobody waits for the queue."""
    exporter, lost = GatedExporter(), Lost()
    provider = provider_with(BoundedProcessor(exporter, lost))
    tracer = provider.get_tracer("test")
    for number in range(25):
        tracer.start_span(str(number)).end()
    assert lost == {"queue_full": 15}
    exporter.gate.set()
    provider.shutdown()
    assert sorted(exporter.names, key=int) == [str(number) for number in range(10)]


@pytest.mark.usefixtures("small_queue")
def test_there_is_room_again_after_an_export() -> None:
    exporter, lost = GatedExporter(), Lost()
    exporter.gate.set()
    provider = provider_with(BoundedProcessor(exporter, lost))
    tracer = provider.get_tracer("test")
    for number in range(30):
        tracer.start_span(str(number)).end()
        if number % 5 == 4:
            provider.force_flush()
    provider.shutdown()
    assert lost == {}
    assert len(exporter.names) == 30


def test_spans_that_the_collector_refused_are_counted() -> None:
    exporter, lost = GatedExporter(SpanExportResult.FAILURE), Lost()
    exporter.gate.set()
    provider = provider_with(BoundedProcessor(exporter, lost))
    provider.get_tracer("test").start_span("x").end()
    provider.shutdown()
    assert lost == {"export_failed": 1}


@pytest.mark.parametrize(("asked", "expected"), [(None, "shop"), ("billing", "billing")])
def test_the_service_is_named_after_the_platform(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, expected: str
) -> None:
    """Unless the operator names it."""
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    if asked:
        monkeypatch.setenv("OTEL_SERVICE_NAME", asked)
    provider = otlp_provider("shop", "1.2.3", ALWAYS_ON, Lost())
    assert provider.resource.attributes["service.name"] == expected
    assert provider.resource.attributes["service.version"] == "1.2.3"
    provider.shutdown()
