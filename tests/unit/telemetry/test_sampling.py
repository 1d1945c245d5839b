"""Which spans are kept, and the variables of OpenTelemetry that decide it."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from headrace.errors import ConfigurationError
from headrace.telemetry.providers import MARKS
from headrace.telemetry.sampling import EventSampler, event_sampler
from headrace.telemetry.tracing import Tracing
from tests.support.spans import NOW, SAMPLED, UNSAMPLED, Spans, facts, link


def test_a_call_that_matters_deserves_a_span(spans: Spans) -> None:
    """Its event is sampled, or it failed, or it was slow."""
    assert spans.tracing.wants_call(SAMPLED, 0.001, False)
    assert spans.tracing.wants_call(None, 0.2, False)
    assert spans.tracing.wants_call(UNSAMPLED, 0.001, True)
    assert not spans.tracing.wants_call(UNSAMPLED, 0.001, False)


def test_a_batch_is_kept_where_one_of_its_events_is_sampled(spans: Spans) -> None:
    assert spans.batch([link(UNSAMPLED, 1), link(SAMPLED, 2)]) is not None


@pytest.mark.parametrize("error_type", ["fenced", "serialisation", "parked"])
def test_a_batch_that_went_wrong_is_always_kept(spans: Spans, error_type: str) -> None:
    assert spans.batch([link(UNSAMPLED)], error_type=error_type, commit=(NOW, NOW)) is not None
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
    with spans.tracing.claim("wallets", "wallets", 3) as claim:
        claim.epoch(8)
    with spans.tracing.drain(partitions=2):
        pass
    spans.tracing.rebalanced("wallets", partitions=2, started_ns=NOW, ended_ns=NOW + 1, standstill_seconds=0.5)
    assert facts(spans.one("claim")) == {
        "headrace.subscription": "wallets",
        "messaging.destination.name": "wallets",
        "messaging.destination.partition.id": "3",
        "headrace.epoch": 8,
    }
    assert facts(spans.one("drain")) == {"headrace.partitions": 2}
    assert facts(spans.one("rebalance"))["headrace.standstill_seconds"] == 0.5


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
def test_a_variable_that_makes_no_sense_is_refused(
    bare_environment: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """In one sentence."""
    bare_environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    bare_environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=said):
        Tracing()


def test_five_percent_of_what_starts_here_is_kept(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    """Unless the operator says otherwise."""

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
