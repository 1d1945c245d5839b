"""What becomes of events, as spans of OpenTelemetry's messaging conventions; their attributes are in `attributes.py`.

Tracing is on where the application has installed a tracer provider (that one is used), or where
`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set. Otherwise every call does next to nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
    set_span_in_context,
)

from headrace.telemetry import attributes as key
from headrace.telemetry import trace_context
from headrace.telemetry.links import MAX_LINKS, EventLink, HandlerCall, link_to, thinned
from headrace.telemetry.providers import Provider, find_provider
from headrace.telemetry.spans import IngestSpan, SendSpan, WorkSpan
from headrace.telemetry.trace_context import TraceContext, is_sampled

if TYPE_CHECKING:
    from headrace.telemetry.metrics import Metrics

Values = dict[str, str | float]

__all__ = ["EventLink", "HandlerCall", "Tracing"]

SLOW_CALL_SECONDS = 0.1


class Tracing:
    """Records what becomes of events as spans. Times are nanoseconds since the epoch; every method is thread-safe."""

    def __init__(
        self,
        *,
        service: str = "headrace",
        version: str = "",
        system: str = "kafka",
        server_address: str | None = None,
        client_id: str | None = None,
        metrics: Metrics | None = None,
        provider: TracerProvider | None = None,
    ) -> None:
        """`system` is the log's `Log.system`. Raises: ConfigurationError (an `OTEL_...` variable makes no sense)."""
        self._metrics = metrics
        found = Provider(provider, is_owned=False) if provider else find_provider(service, version, self._count_dropped)
        self._provider = found
        self._tracer: Tracer | None = found.tracers.get_tracer("headrace", version) if found else None
        self._base: Values = {key.SYSTEM: system}
        endpoint = {key.SERVER_ADDRESS: server_address, key.CLIENT_ID: client_id}
        self._endpoint = {name: value for name, value in endpoint.items() if value is not None}

    @property
    def enabled(self) -> bool:
        """True where spans are made; callers need not ask, except to save work of their own."""
        return self._tracer is not None

    is_sampled = staticmethod(is_sampled)

    def ingest(self, route: str, headers: Mapping[str, str]) -> IngestSpan:
        """Return the span around one HTTP request: `with tracing.ingest("/events", request.headers) as span`.

        It continues the caller's trace. Without tracing, what the caller sent is passed on.
        """
        incoming = TraceContext(headers.get("traceparent"), headers.get("tracestate"))
        remote = trace_context.parse(*incoming)
        if self._tracer is None:
            return IngestSpan(None, incoming if remote else TraceContext(None, None), self.create)
        has_local = trace.get_current_span().get_span_context().is_valid
        span = self._tracer.start_span(
            f"POST {route}",
            context=None if has_local or remote is None else set_span_in_context(NonRecordingSpan(remote)),
            kind=SpanKind.INTERNAL if has_local else SpanKind.SERVER,
            attributes={key.HTTP_METHOD: "POST", key.HTTP_ROUTE: route},
        )
        return IngestSpan(span, trace_context.render(span.get_span_context()), self.create)

    def create(
        self,
        topic: str,
        *,
        event_id: str,
        source: str,
        type: str,
        subject: str | None = None,
        correlationid: str | None = None,
    ) -> TraceContext:
        """Record that one event of a batched request was made, and return the context it carries on."""
        if self._tracer is None:
            return TraceContext(None, None)
        values = self._messaging("create", topic)
        values |= {key.MESSAGE_ID: event_id, key.EVENT_ID: event_id, key.EVENT_SOURCE: source, key.EVENT_TYPE: type}
        if subject is not None:
            values[key.EVENT_SUBJECT] = subject
        if correlationid is not None:
            values[key.CONVERSATION_ID] = correlationid
        span = self._tracer.start_span(f"create {topic}", kind=SpanKind.PRODUCER, attributes=values)
        span.end()
        return trace_context.render(span.get_span_context())

    def send(
        self, topic: str, count: int, *, event_ids: Sequence[str] = (), links: Sequence[str | None] = ()
    ) -> SendSpan:
        """Return the span around one publish; `links` are the traceparents of events with a context of their own."""
        if self._tracer is None:
            return SendSpan(None)
        values = self._messaging("send", topic) | self._endpoint
        if count == 1 and event_ids:
            values[key.MESSAGE_ID] = event_ids[0]
        if count != 1:
            values[key.MESSAGE_COUNT] = count
        own = trace.get_current_span().get_span_context().span_id
        targets = [context for traceparent in links[:MAX_LINKS] if (context := trace_context.parse(traceparent))]
        span = self._tracer.start_span(
            f"send {topic}",
            kind=SpanKind.PRODUCER if count == 1 else SpanKind.CLIENT,
            attributes=values,
            links=[Link(target) for target in targets if target.span_id != own],
        )
        return SendSpan(span)

    def wants_call(self, traceparent: str | None, seconds: float, is_failed: bool) -> bool:
        """Return True where a handler's call deserves a span: a sampled event, a failure, or longer than 100 ms."""
        return self._tracer is not None and (is_failed or seconds > SLOW_CALL_SECONDS or is_sampled(traceparent))

    def batch(
        self,
        *,
        subscription: str,
        topic: str,
        partition: int,
        epoch: int,
        started_ns: int,
        ended_ns: int,
        first_offset: int,
        last_offset: int,
        links: Sequence[EventLink],
        applied: int,
        skipped: int,
        parked: int,
        error_type: str | None = None,
        commit: tuple[int, int] | None = None,
        rows: int | None = None,
        calls: Sequence[HandlerCall] = (),
    ) -> Span | None:
        """Record a finished batch with its handler calls and its commit (start, end); return it for `emitted`.

        `error_type` says what went wrong (`fenced`, `parked`, `serialisation`, ...). Beyond 128 links every n-th stays,
        of the sampled events where there are any: other links lead to traces that nobody kept. None: not kept.
        """
        if self._tracer is None:
            return None
        kept = thinned(links)
        values = self._messaging("process", topic)
        values |= {key.CONSUMER_GROUP: subscription, key.SUBSCRIPTION: subscription, key.PARTITION: str(partition)}
        values |= {key.EPOCH: epoch, key.FIRST_OFFSET: first_offset, key.LAST_OFFSET: last_offset}
        values |= {
            key.APPLIED: applied,
            key.SKIPPED: skipped,
            key.PARKED: parked,
            key.MESSAGE_COUNT: applied + skipped + parked,
        }
        if len(kept) < len(links):
            values[key.LINKS_DROPPED] = len(links) - len(kept)
        span = self._record(
            f"process {topic}", SpanKind.CONSUMER, values, kept, started_ns, ended_ns, error_type=error_type
        )
        if not span.get_span_context().trace_flags.sampled:
            return None
        for call in sorted(calls, key=lambda call: call.error_type is None)[:MAX_LINKS]:
            self._record(
                f"handle {call.handler}",
                SpanKind.INTERNAL,
                {key.HANDLER: call.handler, key.SUBSCRIPTION: subscription, key.MESSAGE_ID: call.event.event_id},
                [call.event],
                call.started_ns,
                call.ended_ns,
                parent=span,
                error_type=call.error_type,
            )
        if commit is not None:
            committing: Values = {key.DATABASE: "postgresql", key.SUBSCRIPTION: subscription}
            if rows is not None:
                committing[key.ROWS] = rows
            self._record(
                f"commit {topic}",
                SpanKind.INTERNAL,
                committing,
                [],
                *commit,
                parent=span,
                error_type=None if error_type == "parked" else error_type,
            )
        return span

    def emitted(
        self,
        batch: Span | None,
        *,
        subscription: str,
        topic: str,
        source: EventLink,
        event_id: str,
        causation_id: str,
        started_ns: int,
        ended_ns: int,
        error_type: str | None = None,
    ) -> None:
        """Record that an emitted event reached the log, where its source event is sampled.

        `batch` is what `batch()` returned; None for an emit that a new owner publishes.
        """
        if self._tracer is None or not is_sampled(source.traceparent):
            return
        values = self._messaging("send", topic) | self._endpoint
        values |= {key.SUBSCRIPTION: subscription, key.MESSAGE_ID: event_id, key.CAUSATION_ID: causation_id}
        self._record(
            f"send {topic}", SpanKind.PRODUCER, values, [source], started_ns, ended_ns, batch, error_type=error_type
        )

    def parked(self, subscription: str, topic: str, event: EventLink, *, at_ns: int, error_type: str | None) -> None:
        """Record that an event was put into its key's lane; `error_type` is None where it stands behind another."""
        self._fate("park", subscription, topic, event, at_ns, {}, error_type)

    def released(
        self, subscription: str, topic: str, event: EventLink, *, at_ns: int, attempt: int, waited_seconds: float
    ) -> None:
        """Record that an event left its lane; its outcome says how."""
        self._fate(
            "release", subscription, topic, event, at_ns, {key.ATTEMPT: attempt, key.WAITED_SECONDS: waited_seconds}
        )

    def dead_lettered(
        self, subscription: str, topic: str, event: EventLink, *, at_ns: int, attempt: int, error_type: str
    ) -> None:
        """Record that an event was given up on."""
        self._fate("dead_letter", subscription, topic, event, at_ns, {key.ATTEMPT: attempt}, error_type)

    def claim(self, subscription: str, topic: str, partition: int) -> WorkSpan:
        """Return the span around one claim."""
        return self._work(
            "claim", {key.SUBSCRIPTION: subscription, key.DESTINATION: topic, key.PARTITION: str(partition)}
        )

    def drain(self, partitions: int) -> WorkSpan:
        """Return the span around a drain of so many partitions."""
        return self._work("drain", {key.PARTITIONS: partitions})

    def rebalanced(
        self, subscription: str, *, partitions: int, started_ns: int, ended_ns: int, standstill_seconds: float
    ) -> None:
        """Record a rebalance, from the revocation to the first commit after the next assignment."""
        values: Values = {key.SUBSCRIPTION: subscription, key.PARTITIONS: partitions}
        values[key.STANDSTILL_SECONDS] = standstill_seconds
        if self._tracer is not None:
            self._record("rebalance", SpanKind.INTERNAL, values, [], started_ns, ended_ns)

    def shutdown(self, timeout_seconds: float) -> None:
        """Send what is queued, and return after the timeout at the latest. Blocks: call it off the event loop."""
        found = self._provider
        if found is None:
            return
        finish = getattr(found.tracers, "shutdown" if found.is_owned else "force_flush", None)
        if finish is not None:
            # The SDK does not keep its own timeouts (opentelemetry-python issue 4568): the thread may outlive the wait.
            thread = threading.Thread(target=finish, name="headrace-trace-flush", daemon=True)
            thread.start()
            thread.join(timeout_seconds)

    def _count_dropped(self, reason: str, spans: int) -> None:
        if self._metrics is not None:
            self._metrics.trace_spans_dropped_total.labels(reason=reason).inc(spans)

    def _messaging(self, operation: str, topic: str) -> Values:
        return {**self._base, key.OPERATION_NAME: operation, key.OPERATION_TYPE: operation, key.DESTINATION: topic}

    def _work(self, name: str, values: Values) -> WorkSpan:
        return WorkSpan(self._tracer.start_span(name, Context(), attributes=values) if self._tracer else None)

    def _fate(
        self,
        operation: str,
        subscription: str,
        topic: str,
        event: EventLink,
        at_ns: int,
        values: Values,
        error_type: str | None = None,
    ) -> None:
        if self._tracer is None or not (error_type or is_sampled(event.traceparent)):
            return
        values = {**self._base, key.DESTINATION: topic, key.SUBSCRIPTION: subscription, **values}
        values |= {key.OPERATION_NAME: operation, key.MESSAGE_ID: event.event_id}
        self._record(f"{operation} {topic}", SpanKind.INTERNAL, values, [event], at_ns, at_ns, error_type=error_type)

    def _record(
        self,
        name: str,
        kind: SpanKind,
        values: Values,
        events: Sequence[EventLink],
        started_ns: int,
        ended_ns: int,
        parent: Span | None = None,
        error_type: str | None = None,
    ) -> Span:
        """Make a span of finished work: the sampler sees how it ended."""
        assert self._tracer is not None
        span = self._tracer.start_span(
            name,
            set_span_in_context(parent, Context()) if parent else Context(),
            kind,
            values if error_type is None else {**values, key.ERROR_TYPE: error_type},
            [link for event in events if (link := link_to(event))],
            started_ns,
        )
        if error_type is not None:
            span.set_status(StatusCode.ERROR)
        span.end(ended_ns)
        return span
