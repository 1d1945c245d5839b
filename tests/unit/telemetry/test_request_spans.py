"""The spans of a request: which trace it continues, its events, and what it sends to the log."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from headrace.telemetry.trace_context import is_sampled, parse
from headrace.telemetry.tracing import Tracing
from tests.support.spans import NOW, SAMPLED, TRACE, Spans, facts, link, trace_of


def test_a_request_continues_the_trace_of_its_caller(spans: Spans) -> None:
    with spans.tracing.ingest("/events", {"traceparent": SAMPLED, "tracestate": "vendor=1"}) as request:
        request.accepted(3)
        carried = request.traceparent
    span = spans.one("POST /events")
    assert span.kind is SpanKind.SERVER
    assert trace_of(span) == TRACE
    assert facts(span) == {"http.request.method": "POST", "http.route": "/events", "headrace.events.accepted": 3}
    assert carried is not None and carried.startswith(f"00-{TRACE}-") and is_sampled(carried)
    assert request.tracestate == "vendor=1"


def test_a_request_in_a_traced_application_is_part_of_its_span(spans: Spans) -> None:
    outer = trace.NonRecordingSpan(parse(SAMPLED))  # type: ignore[arg-type]
    with trace.use_span(outer), spans.tracing.ingest("/events", {}):
        pass
    span = spans.one("POST /events")
    assert span.kind is SpanKind.INTERNAL
    assert trace_of(span) == TRACE


def test_events_of_a_batched_request_get_a_span_each(spans: Spans) -> None:
    """The span of the send links to each of them."""
    with spans.tracing.ingest("/events", {}) as request:
        contexts = [
            request.create(
                "wallets", event_id=f"e{n}", source="/shop", type="wallet.credited", subject="ann", correlationid="c1"
            )
            for n in range(2)
        ]
        links = [context.traceparent for context in contexts]
        with spans.tracing.send("wallets", 2, event_ids=["e0", "e1"], links=links):
            pass
    created = spans.named("create wallets")
    assert [span.kind for span in created] == [SpanKind.PRODUCER] * 2
    assert facts(created[0]) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "create",
        "messaging.operation.type": "create",
        "messaging.destination.name": "wallets",
        "messaging.message.id": "e0",
        "messaging.message.conversation_id": "c1",
        "cloudevents.event_id": "e0",
        "cloudevents.event_source": "/shop",
        "cloudevents.event_type": "wallet.credited",
        "cloudevents.event_subject": "ann",
    }
    sent, entry = spans.one("send wallets"), spans.one("POST /events")
    assert sent.kind is SpanKind.CLIENT
    assert facts(sent)["messaging.batch.message_count"] == 2
    assert [target.context.span_id for target in sent.links] == [
        span.context.span_id for span in created if span.context
    ]
    assert {trace_of(span) for span in spans.all} == {trace_of(entry)}
    assert sent.parent is not None and entry.context is not None
    assert sent.parent.span_id == entry.context.span_id


def test_a_large_batched_request_makes_a_bounded_number_of_spans(spans: Spans) -> None:
    with spans.tracing.ingest("/events", {}) as request:
        contexts = [request.create("wallets", event_id=str(n), source="/s", type="t") for n in range(200)]
    assert len(spans.named("create wallets")) == 128
    assert {context.traceparent for context in contexts[128:]} == {request.traceparent}


def test_a_single_send_tells_where_the_event_went(spans: Spans) -> None:
    with spans.tracing.send("wallets", 1, event_ids=["e1"]) as sent:
        sent.published(partition=4, offset=99)
    span = spans.one("send wallets")
    assert span.kind is SpanKind.PRODUCER
    assert facts(span) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "wallets",
        "messaging.destination.partition.id": "4",
        "messaging.kafka.offset": 99,
        "messaging.message.id": "e1",
        "messaging.client.id": "pod-1",
        "server.address": "kafka:9092",
    }


def test_an_exception_is_a_spans_error_without_its_message(spans: Spans) -> None:
    with pytest.raises(ValueError, match="secret"), spans.tracing.send("wallets", 1):
        raise ValueError("secret data")
    span = spans.one("send wallets")
    assert facts(span)["error.type"] == "ValueError"
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in span.to_json()


def test_an_unsampled_request_still_hands_its_context_on() -> None:
    spans = Spans(entry=ALWAYS_OFF)
    with spans.tracing.ingest("/events", {}) as request:
        created = request.create("wallets", event_id="e", source="/s", type="t")
    assert created.traceparent == request.traceparent
    assert parse(request.traceparent) is not None and not is_sampled(request.traceparent)
    assert spans.all == ()


def test_without_a_collector_the_callers_context_passes_through(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    """Nothing is traced."""
    tracing = Tracing()
    assert not tracing.enabled
    with tracing.ingest("/events", {"traceparent": SAMPLED, "tracestate": "vendor=1"}) as request:
        request.accepted(1)
        assert (request.traceparent, request.tracestate) == (SAMPLED, "vendor=1")
        assert request.create("wallets", event_id="e", source="/s", type="t") == (SAMPLED, "vendor=1")
        with tracing.send("wallets", 1) as sent:
            sent.published(0, 0)
    with tracing.ingest("/events", {"traceparent": "nonsense", "tracestate": "vendor=1"}) as request:
        assert (request.traceparent, request.tracestate) == (None, None)
    with tracing.claim("wallets", "wallets", 0) as claim, tracing.drain(1):
        claim.epoch(1)
    tracing.parked("wallets", "wallets", link(), at_ns=NOW, error_type="ValueError")
    tracing.rebalanced("wallets", partitions=1, started_ns=NOW, ended_ns=NOW, standstill_seconds=0)
    assert not tracing.wants_call(SAMPLED, 10, True)
    tracing.shutdown(1)
