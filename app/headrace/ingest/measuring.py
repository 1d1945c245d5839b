"""Tells metrics and the trace about one request."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from starlette.requests import ClientDisconnect

from headrace.cloudevents import Mode
from headrace.http.problems import Problem
from headrace.telemetry.metrics import Metrics, child
from headrace.telemetry.trace_context import exemplar

if TYPE_CHECKING:
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
    """Measures the work inside `with`: duration by outcome, events per request, and refusals by reason."""

    __slots__ = ("_metrics", "_mode", "_span", "_started", "events")

    def __init__(self, metrics: Metrics, mode: Mode, span: IngestSpan) -> None:
        self._metrics = metrics
        self._mode: Mode = mode
        self._span = span
        self.events = 1
        """The number of events in the request once it is known; a request that cannot be read counts as one."""

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        outcome = "accepted" if error is None else self._failed(error)
        if error is None:
            child(self._metrics.ingest_batch_events, mode=self._mode).observe(self.events)
            self._span.accepted(self.events)
        duration = child(self._metrics.ingest_duration_seconds, mode=self._mode, outcome=outcome)
        duration.observe(time.perf_counter() - self._started, exemplar(self._span.traceparent))

    def _failed(self, error: BaseException) -> str:
        """Count what is refused, tell the span of a failure, and return the outcome."""
        if isinstance(error, ClientDisconnect):
            return "refused"
        if isinstance(error, Problem):
            count_refused(self._metrics, error.status_code, self.events)
            if error.status_code < 500:
                return "refused"
            self._span.failed(error.slug)
        elif isinstance(error, Exception):
            self._span.failed(type(error).__name__)
        return "failed"


def count_refused(metrics: Metrics, status: int, events: int) -> None:
    """Count refused events by the reason; a request whose events nobody has read counts as one."""
    reason = REASONS.get(status)
    if reason is not None:
        metrics.ingest_rejected_total.labels(reason=reason).inc(events)
