"""Tells metrics and the trace about one request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from headrace.cloudevents import Mode
from headrace.http.problems import Problem
from headrace.telemetry.trace_context import exemplar

if TYPE_CHECKING:
    from headrace.telemetry.metrics import Metrics
    from headrace.telemetry.spans import IngestSpan

REASONS = {
    400: "malformed",
    401: "unauthorised",
    403: "unauthorised",
    408: "timeout",
    413: "too_large",
    415: "media_type",
    422: "schema",
    429: "rate_limited",
    503: "unavailable",
}
"""Status -> the label `reason` of headrace_ingest_rejected_total."""


class Measurement:
    """Holds the number of events in the request once it is known; a request that cannot be read counts as one."""

    events = 1


@contextmanager
def measure(metrics: Metrics, mode: Mode, span: IngestSpan) -> Iterator[Measurement]:
    """Measure the work inside: duration by outcome, events per request, and refusals by reason."""
    measurement = Measurement()
    started = time.perf_counter()
    outcome = "failed"
    try:
        yield measurement
        outcome = "accepted"
        metrics.ingest_batch_events.labels(mode=mode).observe(measurement.events)
        span.accepted(measurement.events)
    except ClientDisconnect:
        outcome = "refused"
        raise
    except Problem as problem:
        count_refused(metrics, problem.status_code, measurement.events)
        if problem.status_code < 500:
            outcome = "refused"
        else:
            span.failed(problem.slug)
        raise
    except Exception as error:
        span.failed(type(error).__name__)
        raise
    finally:
        duration = metrics.ingest_duration_seconds.labels(mode=mode, outcome=outcome)
        duration.observe(time.perf_counter() - started, exemplar(span.traceparent))


def count_refused(metrics: Metrics, status: int, events: int) -> None:
    """Count refused events by the reason; a request whose events nobody has read counts as one."""
    reason = REASONS.get(status)
    if reason is not None:
        metrics.ingest_rejected_total.labels(reason=reason).inc(events)
