"""Which spans are kept: as the caller says, 5 % of what starts here, and the batches that matter."""

from __future__ import annotations

import os
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER
from opentelemetry.sdk.trace import sampling
from opentelemetry.sdk.trace.sampling import Decision, ParentBasedTraceIdRatio, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, get_current_span
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes

INGEST_RATIO = 0.05
BATCH_RATIO = 0.001


def event_sampler(marks: Sequence[str]) -> Sampler | None:
    """Return the sampler of a provider that is ours; None leaves it to the SDK (`OTEL_TRACES_SAMPLER=always_off`)."""
    asked = os.environ.get(OTEL_TRACES_SAMPLER, "").strip().lower()
    if asked == "always_off":
        return None
    entry = sampling._get_from_env_or_default() if asked else ParentBasedTraceIdRatio(INGEST_RATIO)
    return EventSampler(entry, marks)


class EventSampler(Sampler):
    """Keeps a trace that begins with a batch by what the batch links to and how it ended.

    `entry` decides for spans that have a parent and for those that begin at a request. The others are made when their
    work is over, so that their attributes hold the outcome. They are kept if one of the attributes named by `marks` has
    a value or a linked event is sampled, and otherwise one time in a thousand. Rare work (claim, drain, rebalance) is
    always kept.
    """

    def __init__(self, entry: Sampler, marks: Sequence[str]) -> None:
        self._entry = entry
        self._marks = tuple(marks)
        self._batch_bound = sampling.TraceIdRatioBased.get_bound_for_rate(BATCH_RATIO)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide for one span that is about to be made."""
        has_parent = get_current_span(parent_context).get_span_context().is_valid
        if has_parent or (not links and kind not in (SpanKind.CONSUMER, SpanKind.INTERNAL)):
            return self._entry.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        is_kept = (
            (not links and kind is SpanKind.INTERNAL)
            or any(attributes.get(mark) for mark in self._marks if attributes)
            or any(link.context.trace_flags.sampled for link in links or ())
            or trace_id & sampling.TraceIdRatioBased.TRACE_ID_LIMIT < self._batch_bound
        )
        if is_kept:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        """Name the sampler in the SDK's own messages."""
        return f"EventSampler{{{self._entry.get_description()}}}"
