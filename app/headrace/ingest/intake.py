"""One request from its body to the answer: read, parse, check, publish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from headrace.cloudevents import Mode, ParsedEvent
from headrace.errors import DecodeError
from headrace.ingest.body import read_body, too_large
from headrace.ingest.door import Door
from headrace.ingest.entries import JSON, Entry, Trace, check_all
from headrace.ingest.measure import measured
from headrace.problems import Problem

if TYPE_CHECKING:
    from headrace.runtime import Runtime
    from headrace.telemetry.spans import IngestSpan

Parse = Callable[[bytes], list[ParsedEvent | DecodeError]]


class Intake:
    """Takes requests in; one per platform, since it knows what is in flight."""

    def __init__(self) -> None:
        self._door = Door()

    async def take(self, runtime: Runtime, request: Request, route: str, mode: Mode, parse: Parse) -> Response:
        """Answer 202 once the log has every event of the request. Raises: Problem, and then none was accepted."""
        with (
            runtime.tracing.ingest(route, request.headers) as span,
            measured(runtime.metrics, mode, span) as tally,
        ):
            self._door.check(runtime)
            parsed = await _read(runtime, request, parse)
            tally.events = len(parsed)
            entries = await check_all(parsed, runtime.registry.types, _trace(span, mode))
            try:
                await self._publish(runtime, entries, span)
            except Problem as problem:
                if mode == "plain" and problem.status_code == 503:
                    problem.detail += f" Send it as Idempotency-Key: {entries[0].envelope.id}."
                raise
        return Response(b'{"accepted":%d}' % len(entries), 202, media_type=JSON)

    async def _publish(self, runtime: Runtime, entries: Sequence[Entry], span: IngestSpan) -> None:
        by_topic: dict[str, list[Entry]] = {}
        for entry in entries:
            by_topic.setdefault(entry.event_type.topic, []).append(entry)
        with ExitStack() as spans:
            for topic, members in by_topic.items():
                ids = [entry.envelope.id for entry in members]
                links = [entry.envelope.traceparent for entry in members]
                send = spans.enter_context(runtime.tracing.send(topic, len(members), event_ids=ids, links=links))
            positions = await self._door.publish(runtime, [entry.record for entry in entries], span.traceparent)
            if len(positions) == 1:
                send.published(positions[0].partition, positions[0].offset)
        accepted = Counter((entry.event_type.topic, entry.event_type.type) for entry in entries)
        for (topic, type_), count in accepted.items():
            runtime.metrics.ingest_accepted_total.labels(topic=topic, type=type_).inc(count)


async def _read(runtime: Runtime, request: Request, parse: Parse) -> list[ParsedEvent | DecodeError]:
    limits = runtime.settings.ingest
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            415, "media-type", "Unsupported media type", "compressed bodies are not read; send the body plain."
        )
    body = await read_body(request, limits.max_body_bytes)
    try:
        parsed = parse(body)
    except DecodeError as error:
        raise _malformed(str(error)) from error
    if not parsed:
        raise _malformed("the batch is empty; send at least one event.")
    if len(parsed) > limits.max_batch_events:
        raise too_large(
            f"the batch has {len(parsed)} events; at most {limits.max_batch_events} are taken "
            "(HEADRACE_INGEST_MAX_BATCH_EVENTS)."
        )
    return parsed


def _trace(span: IngestSpan, mode: Mode) -> Trace:
    """Return what gives an event the request's trace context; in a batch each event gets a span of its own."""
    own = (span.traceparent, span.tracestate)
    if mode != "batched" or span.traceparent is None:
        return lambda topic, envelope: own
    return span.create


def _malformed(detail: str) -> Problem:
    return Problem(400, "malformed", "Not a CloudEvent", detail)
