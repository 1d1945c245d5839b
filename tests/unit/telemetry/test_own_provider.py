"""Spans of finished work are made without the SDK's tracer, and nobody can tell."""

from __future__ import annotations

import random

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from headrace.envelope import Envelope
from headrace.telemetry.facts import EmitFacts, EventFacts, EventLink, HandlerCall
from headrace.telemetry.own_provider import NEEDS_A_TRACER, OwnProvider
from headrace.telemetry.recording import TracerRecorder
from headrace.telemetry.trace_context import parse
from tests.support.spans import NOW, SAMPLED, UNSAMPLED, Spans, link

RANDOM = SAMPLED[:-2] + "03"


def work(spans: Spans) -> None:
    """Record something of each sort; trace and span ids are the same each time."""
    random.seed(1)
    calls = [
        HandlerCall("credit", link(RANDOM, n), NOW, NOW + n, error) for n, error in enumerate([None, "ValueError"])
    ]
    vendor = EventLink(SAMPLED, "vendor=1", "e1", None, "applied")
    for links in ([], [vendor, link(RANDOM)], [link(UNSAMPLED)]):
        batch = spans.batch(links, parked=1, error_type="parked", calls=calls, commit_ns=NOW + 1)
        spans.tracing.emitted(batch, EmitFacts("wallets", "alerts", vendor, "e1-0", NOW, NOW + 1))
    spans.tracing.emitted(None, EmitFacts("wallets", "alerts", vendor, "e1-0", NOW, NOW + 1))
    spans.batch([link(UNSAMPLED)], calls=calls, commit_ns=NOW)
    for parent in (SAMPLED, RANDOM):
        carried = Envelope(id="e", source="/s", type="t", traceparent=parent, tracestate="vendor=1")
        spans.tracing.relayed("alerts", carried, NOW, NOW + 1)
    spans.tracing.event(EventFacts("release", "wallets", "wallets", link(), NOW, attempt=3, waited_seconds=12.5))
    spans.tracing.rebalanced("wallets", partitions=3, started_ns=NOW, ended_ns=NOW + 1, standstill_seconds=0.5)


def parts(span: ReadableSpan) -> list[object]:
    """Return all that another program can know of a span."""
    links = [(each.context, each.context.trace_flags, dict(each.attributes or {})) for each in span.links]
    scope, dropped = span.instrumentation_scope, (span.dropped_attributes, span.dropped_events, span.dropped_links)
    return [span.to_json(), span.context, span.parent, span.start_time, span.end_time, links, scope, dropped]


@pytest.mark.parametrize("entry", [ALWAYS_ON, ALWAYS_OFF])
def test_spans_are_those_of_the_sdk(entry: Sampler) -> None:
    own, installed = Spans(entry), Spans(entry, is_own=False)
    work(own)
    work(installed)
    assert [parts(span) for span in own.all] == [parts(span) for span in installed.all]
    assert len(own.named("handle credit")) == (6 if entry is ALWAYS_ON else 0) and own.named("process wallets")


def test_spans_cannot_be_changed_afterwards() -> None:
    spans = Spans()
    work(spans)
    for span in spans.all:
        assert not hasattr(span.attributes, "update") and isinstance(span.links, tuple)


@pytest.mark.parametrize("variable", NEEDS_A_TRACER)
def test_what_only_the_sdks_tracer_does_is_left_to_it(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "2")
    exporter = InMemorySpanExporter()
    recorder = OwnProvider(SimpleSpanProcessor(exporter), ALWAYS_ON).recorder("headrace", "1")
    assert isinstance(recorder, TracerRecorder)


def test_a_limit_of_attributes_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")
    spans = Spans()
    spans.batch([link()])
    (target,) = spans.one("process wallets").links
    assert (target.attributes or {})["messaging.message.id"] == "eve"


def test_a_span_is_a_parent_for_others() -> None:
    spans = Spans()
    batch = spans.batch([link()])
    assert isinstance(batch, NonRecordingSpan)
    child = spans.tracing._tracer.start_span("child", set_span_in_context(batch))  # type: ignore[union-attr]
    assert child.get_span_context().trace_id == batch.get_span_context().trace_id
    assert parse(SAMPLED) == spans.one("process wallets").links[0].context
