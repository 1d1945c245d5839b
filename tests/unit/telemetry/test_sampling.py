"""Which spans are kept, and what the variables of OpenTelemetry change about it."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from headrace.errors import ConfigurationError
from headrace.telemetry.facts import EmitFacts, EventFacts
from headrace.telemetry.providers import MARKS
from headrace.telemetry.sampling import EventSampler, event_sampler
from headrace.telemetry.trace_context import is_sampled, parse
from headrace.telemetry.tracing import Tracing
from tests.support.spans import NOW, SAMPLED, UNSAMPLED, Spans, envelope, facts, link


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable of OpenTelemetry, and no provider that another test of the process installed for good."""
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", None)
    for name in ("SDK_DISABLED", "TRACES_EXPORTER", "TRACES_SAMPLER", "TRACES_SAMPLER_ARG"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    return monkeypatch


def test_sampled_failed_and_slow_calls_get_a_span(spans: Spans) -> None:
    assert spans.tracing.wants_call(True, 0.001, False)
    assert spans.tracing.wants_call(False, 0.2, False)
    assert spans.tracing.wants_call(False, 0.001, True)
    assert not spans.tracing.wants_call(False, 0.001, False)


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


def test_events_behind_another_do_not_flood_the_collector(spans: Spans) -> None:
    for traceparent in (None, UNSAMPLED):
        spans.tracing.event(EventFacts("park", "wallets", "wallets", link(traceparent), NOW))
    assert spans.all == ()


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
    assert not tracing.wants_call(True, 10, True)
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
