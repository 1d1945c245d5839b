"""One request from its body to the answer: read, parse, check, publish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from headrace.cloudevents import Mode
from headrace.http.body import read_body
from headrace.http.problems import Problem
from headrace.ingest.checking import CheckedEvent, check_all
from headrace.ingest.limiter import Limiter, Place
from headrace.ingest.measuring import measure
from headrace.ingest.parsing import JSON, PlainEvent, check_encoding, parse_request
from headrace.ingest.publishing import connected_log, publish

if TYPE_CHECKING:
    from headrace.log.ports import Log
    from headrace.runtime import Runtime
    from headrace.telemetry.spans import IngestSpan


async def accept(
    runtime: Runtime, limiter: Limiter, request: Request, route: str, mode: Mode, plain: PlainEvent | None = None
) -> Response:
    """Answer 202 once the log has every event of the request. Raises: Problem, and then none was accepted."""
    limits = runtime.settings.ingest
    with (
        runtime.tracing.ingest(route, request.headers) as span,
        measure(runtime.metrics, mode, span) as measurement,
        limiter.place(limits.max_in_flight) as place,
    ):
        log = connected_log(runtime)
        check_encoding(request.headers)
        body = await read_body(request, limits)
        parsed = parse_request(mode, request.headers, body, plain=plain, limits=limits)
        measurement.events = len(parsed)
        events = await check_all(parsed, runtime.registry.types, span, mode)
        try:
            await _publish(runtime, log, events, span, place)
        except Problem as problem:
            if mode == "plain" and problem.status_code == 503:
                problem.detail += f" Send it as Idempotency-Key: {events[0].envelope.id}."
            raise
    return Response(b'{"accepted":%d}' % len(events), 202, media_type=JSON)


async def _publish(runtime: Runtime, log: Log, events: Sequence[CheckedEvent], span: IngestSpan, place: Place) -> None:
    """Publish the events of a request, with a span per topic; count them once the log has them."""
    by_topic: dict[str, list[CheckedEvent]] = {}
    for event in events:
        by_topic.setdefault(event.event_type.topic, []).append(event)
    with ExitStack() as spans:
        for topic, members in by_topic.items():
            ids = [event.envelope.id for event in members]
            links = [event.envelope.traceparent for event in members]
            send = spans.enter_context(runtime.tracing.send(topic, len(members), event_ids=ids, links=links))
        positions = await publish(runtime, log, [event.record for event in events], span.traceparent, place)
        if len(positions) == 1:
            send.published(positions[0].partition, positions[0].offset)
    accepted = Counter((event.event_type.topic, event.event_type.type) for event in events)
    for (topic, type_), count in accepted.items():
        runtime.metrics.ingest_accepted_total.labels(topic=topic, type=type_).inc(count)
