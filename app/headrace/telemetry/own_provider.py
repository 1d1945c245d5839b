"""The tracer provider that is ours: the SDK's, which can also make spans of finished work without a running one."""

from __future__ import annotations

import os

from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import (
    OTEL_ATTRIBUTE_COUNT_LIMIT,
    OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT,
    OTEL_LINK_ATTRIBUTE_COUNT_LIMIT,
    OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT,
    OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT,
    OTEL_SPAN_LINK_COUNT_LIMIT,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
)

from headrace.telemetry.recording import Recorder, RecordingProvider, TracerRecorder, Work

NEEDS_A_TRACER = (
    OTEL_ATTRIBUTE_COUNT_LIMIT,
    OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT,
    OTEL_LINK_ATTRIBUTE_COUNT_LIMIT,
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED",  # the first versions that we accept do not name it
    OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT,
    OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT,
    OTEL_SPAN_LINK_COUNT_LIMIT,
)
"""Variables by which a team asks for what the SDK's tracer does: limits below its usual ones, and to count spans."""

UNSET, ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
RANDOM = 2
"""The flag of a trace whose id is random: that of a parent, or of a trace that begins here."""


class OwnProvider(TracerProvider, RecordingProvider):
    """A provider with one processor, which looks at spans when they are over."""

    def __init__(self, processor: SpanProcessor, sampler: Sampler | None, resource: Resource | None = None) -> None:
        super().__init__(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self.add_span_processor(processor)
        self._processor = processor

    def recorder(self, name: str, version: str) -> Recorder:
        """Return what makes spans of finished work in the name of a library."""
        if any(os.environ.get(variable) for variable in NEEDS_A_TRACER):
            return TracerRecorder(self.get_tracer(name, version))
        return _OwnRecorder(self, self._processor, InstrumentationScope(name, version))


class _OwnRecorder:
    def __init__(self, provider: OwnProvider, processor: SpanProcessor, scope: InstrumentationScope) -> None:
        self._provider = provider
        self._processor = processor
        self._scope = scope

    def record(self, work: Work, context: Context) -> Span:
        """Make a span that is over from the beginning. Its trace, its flags and its sampling are those of a tracer."""
        provider, parent = self._provider, get_current_span(context).get_span_context()
        ids, has_parent = provider.id_generator, parent.is_valid
        trace_id = parent.trace_id if has_parent else ids.generate_trace_id()
        sampled = provider.sampler.should_sample(context, trace_id, work.name, work.kind, work.values, work.links)
        is_kept = sampled.decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags((parent.trace_flags & RANDOM if has_parent else RANDOM) | is_kept)
        own = SpanContext(trace_id, ids.generate_span_id(), False, flags, sampled.trace_state)
        if is_kept:
            self._processor.on_end(
                ReadableSpan(
                    name=work.name,
                    context=own,
                    parent=parent if has_parent else None,
                    resource=provider.resource,
                    attributes=sampled.attributes,
                    links=work.links,
                    kind=work.kind,
                    status=ERROR if work.is_failed else UNSET,
                    start_time=work.started_ns,
                    end_time=work.ended_ns,
                    instrumentation_scope=self._scope,
                )
            )
        return NonRecordingSpan(own)
