"""What spans exist, how they hang together, and which are kept. Spans go to memory instead of a collector."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler
from opentelemetry.trace import SpanKind, StatusCode

import headrace
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.telemetry import attributes
from headrace.telemetry.facts import BatchFacts, EmitFacts, EventFacts, EventLink, HandlerCall
from headrace.telemetry.providers import MARKS
from headrace.telemetry.sampling import EventSampler, event_sampler
from headrace.telemetry.trace_context import is_sampled, parse
from headrace.telemetry.tracing import Tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01"
UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"
NOW = 1_700_000_000_000_000_000

NAMES = {
    "SYSTEM": "messaging.system",
    "OPERATION_NAME": "messaging.operation.name",
    "OPERATION_TYPE": "messaging.operation.type",
    "DESTINATION": "messaging.destination.name",
    "PARTITION": "messaging.destination.partition.id",
    "CONSUMER_GROUP": "messaging.consumer.group.name",
    "MESSAGE_COUNT": "messaging.batch.message_count",
    "MESSAGE_ID": "messaging.message.id",
    "CONVERSATION_ID": "messaging.message.conversation_id",
    "OFFSET": "messaging.kafka.offset",
    "SERVER_ADDRESS": "server.address",
    "EVENT_ID": "cloudevents.event_id",
    "EVENT_SOURCE": "cloudevents.event_source",
    "EVENT_TYPE": "cloudevents.event_type",
    "EVENT_SUBJECT": "cloudevents.event_subject",
    "HTTP_METHOD": "http.request.method",
    "HTTP_ROUTE": "http.route",
    "DATABASE": "db.system.name",
    "ERROR_TYPE": "error.type",
    "ACCEPTED": "headrace.events.accepted",
    "SUBSCRIPTION": "headrace.subscription",
    "EPOCH": "headrace.epoch",
    "FIRST_OFFSET": "headrace.batch.first_offset",
    "LAST_OFFSET": "headrace.batch.last_offset",
    "APPLIED": "headrace.batch.applied",
    "SKIPPED": "headrace.batch.skipped",
    "PARKED": "headrace.batch.parked",
    "ROWS": "headrace.batch.rows",
    "LINKS_DROPPED": "headrace.links.dropped",
    "OUTCOME": "headrace.outcome",
    "HANDLER": "headrace.handler",
    "CAUSATION_ID": "headrace.causation_id",
    "WAITED_SECONDS": "headrace.waited_seconds",
    "ATTEMPT": "headrace.attempt",
    "PARTITIONS": "headrace.partitions",
    "STANDSTILL_SECONDS": "headrace.standstill_seconds",
}


class Spans:
    """A tracing whose spans stay in memory."""

    def __init__(self, entry: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=EventSampler(entry, MARKS), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
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


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("SDK_DISABLED", "TRACES_EXPORTER", "TRACES_SAMPLER", "TRACES_SAMPLER_ARG"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    return monkeypatch


def test_attribute_names_are_pinned() -> None:
    assert {name: value for name, value in vars(attributes).items() if name.isupper()} == NAMES


def test_no_other_file_spells_an_attribute_name() -> None:
    package = Path(headrace.__file__).parent
    for file in sorted(package.rglob("*.py")):
        if file.name == "attributes.py" and file.parent.name == "telemetry":
            continue
        texts = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
        assert not texts & set(NAMES.values()), file


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
        contexts = [request.create("wallets", envelope(f"e{n}", subject="ann", correlationid="c1")) for n in range(2)]
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
        contexts = [request.create("wallets", envelope(str(n))) for n in range(200)]
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
        "server.address": "kafka:9092",
    }


def test_exception_marks_its_span_without_its_message(spans: Spans) -> None:
    with pytest.raises(ValueError, match="secret"), spans.tracing.send("wallets", 1):
        raise ValueError("secret data")
    span = spans.one("send wallets")
    assert facts(span)["error.type"] == "ValueError"
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in span.to_json()


def test_batch_is_a_trace_of_its_own_with_a_link_to_each_event(spans: Spans) -> None:
    with trace.use_span(trace.NonRecordingSpan(parse(UNSAMPLED))):  # type: ignore[arg-type]
        spans.batch([link(offset=10), link(UNSAMPLED, 11), link(None, 12)], commit_ns=NOW + 1)
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


def test_sampled_failed_and_slow_calls_get_a_span(spans: Spans) -> None:
    assert spans.tracing.wants_call(SAMPLED, 0.001, False)
    assert spans.tracing.wants_call(None, 0.2, False)
    assert spans.tracing.wants_call(UNSAMPLED, 0.001, True)
    assert not spans.tracing.wants_call(UNSAMPLED, 0.001, False)


def test_a_batch_is_kept_where_one_of_its_events_is_sampled(spans: Spans) -> None:
    assert spans.batch([link(UNSAMPLED, 1), link(SAMPLED, 2)]) is not None


@pytest.mark.parametrize("error_type", ["fenced", "serialisation", "parked"])
def test_a_batch_that_went_wrong_is_always_kept(spans: Spans, error_type: str) -> None:
    assert spans.batch([link(UNSAMPLED)], error_type=error_type, commit_ns=NOW) is not None
    span, commit = spans.one("process wallets"), spans.one("commit wallets")
    assert facts(span)["error.type"] == error_type
    assert span.status.status_code is StatusCode.ERROR
    assert facts(commit).get("error.type") == (None if error_type == "parked" else error_type)


def test_a_batch_with_parked_events_is_always_kept(spans: Spans) -> None:
    assert spans.batch([link(UNSAMPLED)], parked=1) is not None


def test_one_batch_in_a_thousand_is_kept_without_a_reason() -> None:
    sampler = EventSampler(ALWAYS_ON, MARKS)
    attribute = {"messaging.operation.type": "process"}
    kept = [
        sampler.should_sample(None, trace_id, "process wallets", SpanKind.CONSUMER, attribute, []).decision
        is Decision.RECORD_AND_SAMPLE
        for trace_id in range(0, 2**64, 2**64 // 10_000)
    ]
    assert sum(kept) == 10 or sum(kept) == 11


def test_rare_work_is_always_kept() -> None:
    spans = Spans(entry=ALWAYS_OFF)
    with spans.tracing.claim("wallets", "wallets", 3):
        pass
    with spans.tracing.drain(partitions=2):
        pass
    spans.tracing.rebalanced("wallets", partitions=2, started_ns=NOW, ended_ns=NOW + 1, standstill_seconds=0.5)
    assert facts(spans.one("claim")) == {
        "headrace.subscription": "wallets",
        "messaging.destination.name": "wallets",
        "messaging.destination.partition.id": "3",
    }
    assert facts(spans.one("drain")) == {"headrace.partitions": 2}
    assert facts(spans.one("rebalance"))["headrace.standstill_seconds"] == 0.5


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


def test_events_behind_another_do_not_flood_the_collector(spans: Spans) -> None:
    for traceparent in (None, UNSAMPLED):
        spans.tracing.event(EventFacts("park", "wallets", "wallets", link(traceparent), NOW))
    assert spans.all == ()


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


def test_emits_of_unsampled_events_make_no_spans(spans: Spans) -> None:
    spans.tracing.emitted(None, EmitFacts("wallets", "alerts", link(UNSAMPLED), "x", NOW, NOW))
    assert spans.all == ()


def test_an_unsampled_request_still_hands_its_context_on() -> None:
    spans = Spans(entry=ALWAYS_OFF)
    with spans.tracing.ingest("/events", {}) as request:
        created = request.create("wallets", envelope("e"))
    assert created.traceparent == request.traceparent
    assert parse(request.traceparent) is not None and not is_sampled(request.traceparent)
    assert spans.all == ()


def test_without_a_collector_the_callers_context_passes_through(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    tracing = Tracing()
    assert not tracing.enabled
    with tracing.ingest("/events", {"traceparent": SAMPLED, "tracestate": "vendor=1"}) as request:
        request.accepted(1)
        assert (request.traceparent, request.tracestate) == (SAMPLED, "vendor=1")
        assert request.create("wallets", envelope("e")) == (SAMPLED, "vendor=1")
        with tracing.send("wallets", 1) as sent:
            sent.published(0, 0)
    with tracing.ingest("/events", {"traceparent": "nonsense", "tracestate": "vendor=1"}) as request:
        assert (request.traceparent, request.tracestate) == (None, None)
    with tracing.claim("wallets", "wallets", 0), tracing.drain(1):
        pass
    tracing.event(EventFacts("park", "wallets", "wallets", link(), NOW, "ValueError"))
    tracing.rebalanced("wallets", partitions=1, started_ns=NOW, ended_ns=NOW, standstill_seconds=0)
    assert not tracing.wants_call(SAMPLED, 10, True)
    tracing.shutdown(1)


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_the_standard_switches_turn_tracing_off(bare_environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    bare_environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    bare_environment.setenv(name, value)
    assert not Tracing().enabled


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1", "OTEL_"),
    ],
)
def test_senseless_variable_is_refused_in_one_sentence(
    bare_environment: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    bare_environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    bare_environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=said):
        Tracing()


def test_five_percent_of_requests_are_kept_unless_told_otherwise(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    def kept(sampler: Sampler | None) -> int:
        assert sampler is not None
        ids = range(0, 2**64, 2**64 // 1_000)
        return sum(
            sampler.should_sample(None, n, "POST /events", SpanKind.SERVER).decision is Decision.RECORD_AND_SAMPLE
            for n in ids
        )

    assert kept(event_sampler(MARKS)) == pytest.approx(50, abs=1)
    bare_environment.setenv("OTEL_TRACES_SAMPLER", "always_on")
    assert kept(event_sampler(MARKS)) == pytest.approx(1_000, abs=1)
    bare_environment.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert event_sampler(MARKS) is None
