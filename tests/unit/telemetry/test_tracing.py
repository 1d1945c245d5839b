"""What spans exist, and how they hang together. Spans go to memory instead of a collector."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from headrace.telemetry.facts import CallFacts, EmitFacts, EventFacts, EventLink, HandlerCall
from headrace.telemetry.trace_context import is_sampled, parse
from tests.support.spans import NOW, SAMPLED, TRACE, UNSAMPLED, Spans, envelope, facts, link, trace_of


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


def test_request_in_a_traced_application_is_a_part_of_its_span(spans: Spans) -> None:
    outer = trace.NonRecordingSpan(parse(SAMPLED))  # type: ignore[arg-type]
    with trace.use_span(outer), spans.tracing.ingest("/events", {}):
        pass
    span = spans.one("POST /events")
    assert span.kind is SpanKind.INTERNAL
    assert trace_of(span) == TRACE


def test_send_links_to_a_span_for_each_event_of_a_batch(spans: Spans) -> None:
    with spans.tracing.ingest("/events", {}) as request:
        events = [envelope(f"e{n}", subject="ann", correlationid="c1") for n in range(2)]
        contexts = request.contexts(["wallets"] * 2, events)
        sent_events = [replace(each, traceparent=context[0]) for each, context in zip(events, contexts, strict=True)]
        with spans.tracing.send("wallets", 2, sent_events):
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
        contexts = request.contexts(["wallets"] * 200, [envelope(str(n)) for n in range(200)])
    assert len(spans.named("create wallets")) == 16
    assert {context.traceparent for context in contexts[16:]} == {request.traceparent}


def test_a_single_send_tells_where_the_event_went(spans: Spans) -> None:
    with spans.tracing.send("wallets", 1, [envelope("e1")]) as sent:
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
        "server.address": "kafka:9092",
    }


def test_exception_marks_its_span_without_its_message(spans: Spans) -> None:
    with pytest.raises(ValueError, match="secret"), spans.tracing.send("wallets", 1):
        raise ValueError("secret data")
    span = spans.one("send wallets")
    assert facts(span)["error.type"] == "ValueError"
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in span.to_json()


def test_batch_is_a_trace_with_a_link_to_each_sampled_event(spans: Spans) -> None:
    with trace.use_span(trace.NonRecordingSpan(parse(UNSAMPLED))):  # type: ignore[arg-type]
        spans.batch([link(offset=10), link(UNSAMPLED, 11), link(None, 12), link(offset=13)], commit_ns=NOW + 1)
    span, commit = spans.one("process wallets"), spans.one("commit wallets")
    assert span.kind is SpanKind.CONSUMER
    assert span.parent is None and trace_of(span) != TRACE
    assert (span.start_time, span.end_time) == (NOW, NOW + 5_000_000)
    assert facts(span) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "wallets",
        "messaging.destination.partition.id": "3",
        "messaging.consumer.group.name": "wallets",
        "messaging.batch.message_count": 3,
        "headrace.subscription": "wallets",
        "headrace.epoch": 7,
        "headrace.batch.first_offset": 10,
        "headrace.batch.last_offset": 12,
        "headrace.batch.applied": 2,
        "headrace.batch.skipped": 1,
        "headrace.batch.parked": 0,
    }
    assert [dict(target.attributes or {}) for target in span.links] == [
        {"messaging.message.id": f"event-{n}", "messaging.kafka.offset": n, "headrace.outcome": "applied"}
        for n in (10, 13)
    ]
    assert commit.parent is not None and span.context is not None
    assert commit.parent.span_id == span.context.span_id
    assert (commit.start_time, commit.end_time) == (NOW + 1, NOW + 5_000_000)
    assert facts(commit) == {
        "db.system.name": "postgresql",
        "headrace.subscription": "wallets",
        "headrace.batch.rows": 4,
    }


def test_beyond_128_links_every_nth_of_the_sampled_events_stays(spans: Spans) -> None:
    spans.batch([link(SAMPLED if n % 2 else UNSAMPLED, n) for n in range(1000)])
    span = spans.one("process wallets")
    offsets = [(target.attributes or {})["messaging.kafka.offset"] for target in span.links]
    assert offsets == list(range(1, 1000, 8))
    assert facts(span)["headrace.links.dropped"] == 500 - 125


def test_calls_are_parts_failures_first_then_the_longest(spans: Spans) -> None:
    calls = [HandlerCall("credit", link(offset=n), NOW, NOW + 1 + n) for n in range(200)]
    calls += [HandlerCall("credit", link(offset=n), NOW, NOW + 1, "ValueError") for n in (500, 501)]
    spans.batch([link()], calls=calls)
    recorded, batch = spans.named("handle credit"), spans.one("process wallets")
    assert [facts(span).get("error.type") for span in recorded] == ["ValueError"] * 2 + [None] * 16
    assert {facts(span)["messaging.message.id"] for span in recorded[2:]} == {f"event-{n}" for n in range(184, 200)}
    assert facts(batch)["headrace.calls.dropped"] == 184
    assert recorded[0].links[0].context.trace_id == int(TRACE, 16)
    assert {trace_of(span) for span in recorded} == {trace_of(batch)}


def test_a_small_batch_has_a_span_for_each_call(spans: Spans) -> None:
    spans.batch([link()], calls=[HandlerCall("credit", link(offset=n), NOW, NOW + 1) for n in range(16)])
    assert len(spans.named("handle credit")) == 16
    assert "headrace.calls.dropped" not in facts(spans.one("process wallets"))


def test_a_parked_event_is_linked_to_instead_of_being_a_child(spans: Spans) -> None:
    event = link()
    spans.tracing.event(EventFacts("park", "wallets", "wallets", event, NOW, "ValueError"))
    spans.tracing.event(EventFacts("release", "wallets", "wallets", event, NOW, attempt=3, waited_seconds=12.5))
    spans.tracing.event(EventFacts("dead_letter", "wallets", "wallets", event, NOW, "gave_up", attempt=8))
    for name in ("park wallets", "release wallets", "dead_letter wallets"):
        span = spans.one(name)
        assert span.parent is None
        assert span.links[0].context.trace_id == int(TRACE, 16)
        assert facts(span)["messaging.message.id"] == "event-10"
    assert facts(spans.one("park wallets"))["error.type"] == "ValueError"
    assert facts(spans.one("release wallets"))["headrace.waited_seconds"] == 12.5
    assert facts(spans.one("dead_letter wallets"))["headrace.attempt"] == 8


def test_run_of_an_effect_links_to_its_event_and_holds_its_calls(spans: Spans) -> None:
    with spans.tracing.effect(CallFacts("pay", "payments", "orders", link(), NOW, 2, 1.5)), spans.tracing.send("x", 1):
        pass
    span, inner = spans.one("effect pay"), spans.one("send x")
    assert span.parent is None and trace_of(span) != TRACE and span.start_time == NOW
    assert span.links[0].context.trace_id == int(TRACE, 16)
    assert facts(span) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "effect",
        "messaging.destination.name": "orders",
        "messaging.message.id": "event-10",
        "headrace.subscription": "payments",
        "headrace.handler": "pay",
        "headrace.attempt": 2,
        "headrace.waited_seconds": 1.5,
    }
    assert inner.parent is not None and span.context is not None and inner.parent.span_id == span.context.span_id


@pytest.mark.parametrize("traceparent", [SAMPLED, UNSAMPLED, None])
def test_failed_call_of_an_effect_has_a_span_in_any_case(spans: Spans, traceparent: str | None) -> None:
    called = CallFacts("pay", "payments", "orders", link(traceparent), NOW, 1, 0.0)
    with pytest.raises(ValueError, match="secret"), spans.tracing.effect(called):
        raise ValueError("secret data")
    span = spans.one("effect pay")
    assert facts(span)["error.type"] == "ValueError" and span.status.status_code is StatusCode.ERROR
    assert len(span.links) == (traceparent is not None) and "secret" not in span.to_json()


def test_call_of_an_effect_has_no_span_if_its_event_has_none(spans: Spans) -> None:
    with spans.tracing.effect(CallFacts("pay", "payments", "orders", link(UNSAMPLED), NOW, 1, 0.0)):
        pass
    assert not spans.all


def test_request_can_be_followed_to_the_events_it_caused(spans: Spans) -> None:
    """HTTP span -> event -> batch (link) -> emitted event -> the batch downstream (link)."""
    with spans.tracing.ingest("/events/wallet.debited", {}) as request, spans.tracing.send("wallets", 1):
        event = EventLink(request.traceparent, request.tracestate, "e1", 10, "applied")
    batch = spans.batch([event])
    spans.tracing.emitted(batch, EmitFacts("wallets", "alerts", event, "e1-0", NOW, NOW + 1))
    emitted = EventLink(event.traceparent, event.tracestate, "e1-0", 0, "applied")
    spans.batch([emitted])

    entry = spans.one("POST /events/wallet.debited")
    upstream, downstream = spans.named("process wallets")
    sent = spans.one("send alerts")
    assert trace_of(spans.one("send wallets")) == trace_of(entry)
    assert upstream.context is not None and entry.context is not None and sent.parent is not None
    assert sent.parent.span_id == upstream.context.span_id
    assert sent.kind is SpanKind.PRODUCER
    assert facts(sent)["headrace.causation_id"] == "e1"
    for span in (upstream, sent, downstream):
        assert [target.context.span_id for target in span.links] == [entry.context.span_id]
