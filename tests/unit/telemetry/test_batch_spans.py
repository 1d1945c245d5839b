"""The spans of a batch: its links to events, its commit, its calls of handlers, its emits and its failures."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from headrace.telemetry.trace_context import parse
from headrace.telemetry.tracing import EventLink, HandlerCall
from tests.support.spans import NOW, SAMPLED, TRACE, UNSAMPLED, Spans, facts, link, trace_of


def test_a_finished_batch_is_a_trace_of_its_own(spans: Spans) -> None:
    """It has a link to each event that has a trace."""
    with trace.use_span(trace.NonRecordingSpan(parse(UNSAMPLED))):  # type: ignore[arg-type]
        spans.batch([link(offset=10), link(UNSAMPLED, 11), link(None, 12)], commit=(NOW + 1, NOW + 2))
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
        for n in (10, 11)
    ]
    assert commit.parent is not None and span.context is not None
    assert commit.parent.span_id == span.context.span_id
    assert (commit.start_time, commit.end_time) == (NOW + 1, NOW + 2)
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
    assert facts(span)["headrace.links.dropped"] == 1000 - 125


def test_calls_of_handlers_are_parts_of_the_batch_failures_first(spans: Spans) -> None:
    calls = [HandlerCall("credit", link(offset=n), NOW, NOW + 1) for n in range(200)]
    calls.append(HandlerCall("credit", link(offset=500), NOW, NOW + 1, "ValueError"))
    spans.batch([link()], calls=calls)
    recorded = spans.named("handle credit")
    assert len(recorded) == 128
    assert facts(recorded[0])["error.type"] == "ValueError"
    assert recorded[0].links[0].context.trace_id == int(TRACE, 16)
    assert {trace_of(span) for span in recorded} == {trace_of(spans.one("process wallets"))}


def test_what_becomes_of_a_failed_event_links_to_it(spans: Spans) -> None:
    """The spans of parking, release and dead letter are links and not children of the event's span."""
    event = link()
    spans.tracing.parked("wallets", "wallets", event, at_ns=NOW, error_type="ValueError")
    spans.tracing.released("wallets", "wallets", event, at_ns=NOW, attempt=3, waited_seconds=12.5)
    spans.tracing.dead_lettered("wallets", "wallets", event, at_ns=NOW, attempt=8, error_type="gave_up")
    for name in ("park wallets", "release wallets", "dead_letter wallets"):
        span = spans.one(name)
        assert span.parent is None
        assert span.links[0].context.trace_id == int(TRACE, 16)
        assert facts(span)["messaging.message.id"] == "event-10"
    assert facts(spans.one("release wallets"))["headrace.waited_seconds"] == 12.5
    assert facts(spans.one("dead_letter wallets"))["headrace.attempt"] == 8


def test_events_that_stand_behind_another_make_no_spans(spans: Spans) -> None:
    """They would flood the collector."""
    for traceparent in (None, UNSAMPLED):
        spans.tracing.parked("wallets", "wallets", link(traceparent), at_ns=NOW, error_type=None)
    assert spans.all == ()


def test_one_request_can_be_followed_to_what_it_caused(spans: Spans) -> None:
    """HTTP span -> event -> batch (link) -> emitted event -> the batch downstream (link)."""
    with spans.tracing.ingest("/events/wallet.debited", {}) as request, spans.tracing.send("wallets", 1):
        event = EventLink(request.traceparent, request.tracestate, "e1", 10, "applied")
    batch = spans.batch([event])
    spans.tracing.emitted(
        batch,
        subscription="wallets",
        topic="alerts",
        source=event,
        event_id="e1-0",
        causation_id="e1",
        started_ns=NOW,
        ended_ns=NOW + 1,
    )
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


def test_emits_of_unsampled_events_make_no_spans(spans: Spans) -> None:
    spans.tracing.emitted(
        None,
        subscription="wallets",
        topic="alerts",
        source=link(UNSAMPLED),
        event_id="x",
        causation_id="y",
        started_ns=NOW,
        ended_ns=NOW,
    )
    assert spans.all == ()
