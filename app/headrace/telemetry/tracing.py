"""The platform's spans, by OpenTelemetry's messaging conventions; their attributes are in `attributes.py`.

Tracing is on if the application has installed a tracer provider (which is then used), or if
`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set. Otherwise every call does next to nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanKind,
    Tracer,
    TracerProvider,
    set_span_in_context,
)

from headrace.envelope import Envelope
from headrace.telemetry import attributes as key
from headrace.telemetry import trace_context
from headrace.telemetry.facts import BatchFacts, CallFacts, EmitFacts, EventFacts, EventLink, HandlerCall
from headrace.telemetry.links import MAX_LINKS, link_to, notable, thinned
from headrace.telemetry.providers import Provider, find_provider
from headrace.telemetry.recording import Values, Work
from headrace.telemetry.spans import CallSpan, IngestSpan, SendSpan, WorkSpan
from headrace.telemetry.trace_context import TraceContext, is_sampled

if TYPE_CHECKING:
    from headrace.telemetry.metrics import Metrics

ROOT = Context()
"""The context of what begins a trace of its own."""

SLOW_CALL_SECONDS = 0.1
"""A longer call of a handler gets a span of its own."""


class Tracing:
    """Records what happens to events as spans. Times are nanoseconds since the epoch; every method is thread-safe."""

    def __init__(
        self,
        *,
        service: str = "headrace",
        version: str = "",
        system: str = "kafka",
        server_address: str | None = None,
        metrics: Metrics | None = None,
        provider: TracerProvider | None = None,
    ) -> None:
        """`system` names the kind of log. Raises: ConfigurationError (an `OTEL_...` variable makes no sense)."""
        self._metrics = metrics
        found = Provider(provider, is_owned=False) if provider else find_provider(service, version, self._count_dropped)
        self._provider = found
        self._tracer: Tracer | None = found.tracers.get_tracer("headrace", version) if found else None
        self._recorder = found.recorder("headrace", version) if found else None
        self._base: Values = {key.SYSTEM: system}
        self._endpoint: Values = {key.SERVER_ADDRESS: server_address} if server_address else {}

    @property
    def enabled(self) -> bool:
        """True if spans are made; callers need not ask, except to save work of their own."""
        return self._tracer is not None

    def ingest(self, route: str, headers: Mapping[str, str]) -> IngestSpan:
        """Return the span around one HTTP request: `with tracing.ingest("/events", request.headers) as span`.

        It continues the caller's trace. Without tracing, what the caller sent is passed on.
        """
        incoming = TraceContext(headers.get("traceparent"), headers.get("tracestate"))
        remote = trace_context.parse(*incoming)
        if self._tracer is None:
            return IngestSpan(None, incoming if remote else TraceContext(None, None), self.create)
        has_local = trace.get_current_span().get_span_context().is_valid
        around = get_current()  # said explicitly, since the SDK asks five times which one it is
        span = self._tracer.start_span(
            f"POST {route}",
            context=around if has_local or remote is None else set_span_in_context(NonRecordingSpan(remote), around),
            kind=SpanKind.INTERNAL if has_local else SpanKind.SERVER,
            attributes={key.HTTP_METHOD: "POST", key.HTTP_ROUTE: route},
        )
        return IngestSpan(span, trace_context.render(span.get_span_context()), self.create)

    def create(self, topic: str, envelope: Envelope) -> TraceContext:
        """Record that one event of a batched request was made, and return the context that the event carries."""
        if self._tracer is None:
            return TraceContext(None, None)
        values = self._messaging("create", topic)
        values |= {key.MESSAGE_ID: envelope.id, key.EVENT_ID: envelope.id}
        values |= {key.EVENT_SOURCE: envelope.source, key.EVENT_TYPE: envelope.type}
        if envelope.subject is not None:
            values[key.EVENT_SUBJECT] = envelope.subject
        if envelope.correlationid is not None:
            values[key.CONVERSATION_ID] = envelope.correlationid
        span = self._tracer.start_span(f"create {topic}", kind=SpanKind.PRODUCER, attributes=values)
        span.end()
        return trace_context.render(span.get_span_context())

    def carried(self, topic: str, envelope: Envelope) -> TraceContext:
        """Return the context that an event published from code carries: the current span's, else one of its own."""
        current = trace_context.current()
        return current if current.traceparent is not None else self.create(topic, envelope)

    def send(self, topic: str, count: int, events: Iterable[Envelope] = ()) -> SendSpan:
        """Return the span around one publish of so many events; it links to those with a context of their own.

        Nothing is made below a span that is not sampled, and no event is looked at: samplers follow their parents, and
        to ask one costs as much as to encode the event.
        """
        own = trace.get_current_span().get_span_context()
        if self._tracer is None or (own.is_valid and not own.trace_flags.sampled):
            return SendSpan(None)
        linked = list(islice(events, MAX_LINKS))
        values = self._messaging("send", topic) | self._endpoint
        if count == 1 and linked:
            values[key.MESSAGE_ID] = linked[0].id
        if count != 1:
            values[key.MESSAGE_COUNT] = count
        targets = [context for each in linked if (context := trace_context.parse(each.traceparent))]
        span = self._tracer.start_span(
            f"send {topic}",
            kind=SpanKind.PRODUCER if count == 1 else SpanKind.CLIENT,
            attributes=values,
            links=[Link(target) for target in targets if target.span_id != own.span_id],
        )
        return SendSpan(span)

    def wants_call(self, is_sampled: bool, seconds: float, is_failed: bool) -> bool:
        """Return True if a handler's call gets a span: its event is sampled, it failed, or it took more than 100 ms."""
        return self._tracer is not None and (is_failed or is_sampled or seconds > SLOW_CALL_SECONDS)

    def batch(self, facts: BatchFacts) -> Span | None:
        """Record a finished batch with its handler calls and its commit; return its span for `emitted`.

        It links to its sampled events, and to every n-th one of more than 128. Of the handlers' calls, those that
        failed and the longest ones get a span. Returns None if the sampler does not keep the batch.
        """
        if self._tracer is None:
            return None
        links, left_out = thinned([link for link in facts.links if is_sampled(link.traceparent)])
        values = self._messaging("process", facts.topic) | _of_batch(facts)
        if dropped := facts.links_dropped + left_out:
            values[key.LINKS_DROPPED] = dropped
        calls, left_out = notable(facts.calls)
        if dropped := facts.calls_dropped + left_out:
            values[key.CALLS_DROPPED] = dropped
        times = facts.started_ns, facts.ended_ns
        span = self._record(
            f"process {facts.topic}",
            SpanKind.CONSUMER,
            values,
            links,
            *times,
            error_type=facts.error_type,
            is_about_many=True,
        )
        if not span.get_span_context().trace_flags.sampled:
            return None
        within = set_span_in_context(span, ROOT)
        for call in calls:
            self._handler_call(call, facts.subscription, within)
        if facts.commit_ns is not None:
            self._commit(facts, facts.commit_ns, within)
        return span

    def emitted(self, batch: Span | None, facts: EmitFacts) -> None:
        """Record that an emitted event reached the log, if its source event is sampled.

        `batch` is what `batch()` returned; None for an emit that a new owner publishes.
        """
        if self._tracer is None or not is_sampled(facts.source.traceparent):
            return
        values = self._messaging("send", facts.topic) | self._endpoint
        values |= {key.SUBSCRIPTION: facts.subscription, key.MESSAGE_ID: facts.event_id}
        values |= {key.CAUSATION_ID: facts.source.event_id}
        times = facts.started_ns, facts.ended_ns
        within = set_span_in_context(batch, ROOT) if batch else ROOT
        self._record(f"send {facts.topic}", SpanKind.PRODUCER, values, [facts.source], *times, within)

    def relayed(self, topic: str, envelope: Envelope, started_ns: int, ended_ns: int) -> None:
        """Record that an event of the outbox reached the log, below the route's span, if that is sampled."""
        parent = trace_context.parse(envelope.traceparent, envelope.tracestate)
        if self._tracer is None or parent is None or not is_sampled(envelope.traceparent):
            return
        values = self._messaging("send", topic) | self._endpoint
        values[key.MESSAGE_ID] = envelope.id
        times = started_ns, ended_ns
        within = set_span_in_context(NonRecordingSpan(parent), ROOT)
        self._record(f"send {topic}", SpanKind.PRODUCER, values, [], *times, within)

    def event(self, facts: EventFacts) -> None:
        """Record what happened to one event, if it is sampled or something failed."""
        if self._tracer is None or not (facts.error_type or is_sampled(facts.event.traceparent)):
            return
        values: Values = {**self._base, key.OPERATION_NAME: facts.operation, key.DESTINATION: facts.topic}
        values |= {key.SUBSCRIPTION: facts.subscription, key.MESSAGE_ID: facts.event.event_id}
        if facts.attempt is not None:
            values[key.ATTEMPT] = facts.attempt
        if facts.waited_seconds is not None:
            values[key.WAITED_SECONDS] = facts.waited_seconds
        name, times = f"{facts.operation} {facts.topic}", (facts.at_ns, facts.at_ns)
        self._record(name, SpanKind.INTERNAL, values, [facts.event], *times, error_type=facts.error_type)

    def effect(self, facts: CallFacts) -> CallSpan:
        """Return the span around one run of an effect's call: a trace of its own that links to its event's.

        It is made if the event is sampled, or else when the call fails.
        """
        tracer = self._tracer
        if tracer is None:
            return CallSpan(None, None)
        values: Values = {**self._base, key.OPERATION_NAME: "effect", key.DESTINATION: facts.topic}
        values |= {key.SUBSCRIPTION: facts.subscription, key.HANDLER: facts.effect}
        values |= {key.MESSAGE_ID: facts.event.event_id, key.ATTEMPT: facts.attempt}
        values[key.WAITED_SECONDS] = facts.waited_seconds
        name, kind = f"effect {facts.effect}", SpanKind.INTERNAL
        if is_sampled(facts.event.traceparent):
            links = [link for link in (link_to(facts.event),) if link]
            return CallSpan(tracer.start_span(name, Context(), kind, values, links, facts.started_ns), None)

        def late(error_type: str) -> None:
            times = facts.started_ns, time.time_ns()
            self._record(name, kind, values, [facts.event], *times, error_type=error_type)

        return CallSpan(None, late)

    def claim(self, subscription: str, topic: str, partition: int) -> WorkSpan:
        """Return the span around one claim."""
        return self._work(
            "claim", {key.SUBSCRIPTION: subscription, key.DESTINATION: topic, key.PARTITION: str(partition)}
        )

    def drain(self, partitions: int) -> WorkSpan:
        """Return the span around a drain; `partitions` is how many are drained."""
        return self._work("drain", {key.PARTITIONS: partitions})

    def rebalanced(
        self, subscription: str, *, partitions: int, started_ns: int, ended_ns: int, standstill_seconds: float
    ) -> None:
        """Record a rebalance, until the partitions are worked on; `standstill_seconds` is that of the slowest one."""
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

    def _handler_call(self, call: HandlerCall, subscription: str, batch: Context) -> None:
        values: Values = {key.HANDLER: call.handler, key.SUBSCRIPTION: subscription}
        values[key.MESSAGE_ID] = call.event.event_id
        name, times = f"handle {call.handler}", (call.started_ns, call.ended_ns)
        self._record(name, SpanKind.INTERNAL, values, [call.event], *times, batch, call.error_type)

    def _commit(self, facts: BatchFacts, commit_ns: int, batch: Context) -> None:
        values: Values = {key.DATABASE: "postgresql", key.SUBSCRIPTION: facts.subscription, key.ROWS: facts.rows}
        error_type = None if facts.error_type == "parked" else facts.error_type  # parked events were committed as such
        name, times = f"commit {facts.topic}", (commit_ns, facts.ended_ns)
        self._record(name, SpanKind.INTERNAL, values, [], *times, batch, error_type)

    def _record(
        self,
        name: str,
        kind: SpanKind,
        values: Values,
        events: Sequence[EventLink],
        started_ns: int,
        ended_ns: int,
        within: Context = ROOT,
        error_type: str | None = None,
        *,
        is_about_many: bool = False,
    ) -> Span:
        """Make a span of finished work: the sampler sees how it ended."""
        assert self._recorder is not None
        if error_type is not None:
            values[key.ERROR_TYPE] = error_type
        links = [link for event in events if (link := link_to(event, is_one_of_many=is_about_many))]
        return self._recorder.record(
            Work(name, kind, values, links, started_ns, ended_ns, error_type is not None), within
        )


def _of_batch(facts: BatchFacts) -> Values:
    return {
        key.CONSUMER_GROUP: facts.subscription,
        key.SUBSCRIPTION: facts.subscription,
        key.PARTITION: str(facts.partition),
        key.EPOCH: facts.epoch,
        key.FIRST_OFFSET: facts.first_offset,
        key.LAST_OFFSET: facts.last_offset,
        key.APPLIED: facts.applied,
        key.SKIPPED: facts.skipped,
        key.PARKED: facts.parked,
        key.MESSAGE_COUNT: facts.applied + facts.skipped + facts.parked,
    }
