"""Checks parsed events against their types and makes records of them: all of a request, or none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from headrace.cloudevents import Mode, ParsedEvent, encode_record, event_key
from headrace.envelope import Envelope
from headrace.errors import DecodeError, EventError, SchemaError, UnknownTypeError
from headrace.event import EventType
from headrace.http.problems import Problem
from headrace.ingest.parsing import JSON
from headrace.log.ports import NewRecord
from headrace.telemetry.trace_context import TraceContext

if TYPE_CHECKING:
    from headrace.telemetry.spans import IngestSpan

MAX_LISTED = 100
"""Faults listed in one answer; the count is complete."""

YIELD_EVENTS = 200
"""Events checked before other requests get a turn, about 3 ms."""


class CheckedEvent(NamedTuple):
    """An event that may be published."""

    envelope: Envelope
    event_type: EventType
    record: NewRecord


async def check_all(
    parsed: Sequence[ParsedEvent | DecodeError], types: Mapping[str, EventType], span: IngestSpan, mode: Mode
) -> list[CheckedEvent]:
    """Return every event, checked. Raises: Problem 400 or 422 that lists every event at fault by its index."""
    checked: list[CheckedEvent] = []
    faults: list[tuple[int, EventError]] = []
    now = datetime.now(UTC)
    for index, outcome in enumerate(parsed):
        if index % YIELD_EVENTS == YIELD_EVENTS - 1:
            await asyncio.sleep(0)
        if isinstance(outcome, DecodeError):
            faults.append((index, outcome))
            continue
        try:
            checked.append(_check(outcome, types, span, mode, now))
        except EventError as error:
            faults.append((index, error))
    if faults:
        raise _refusal(faults, len(parsed))
    return checked


def _check(
    parsed: ParsedEvent, types: Mapping[str, EventType], span: IngestSpan, mode: Mode, now: datetime
) -> CheckedEvent:
    envelope, data = parsed
    event_type = types.get(envelope.type)
    if event_type is None:
        raise UnknownTypeError(f"the type {envelope.type!r} is not declared; declared are: {', '.join(sorted(types))}.")
    if envelope.dataschema is not None:
        event_type.check_version(envelope.dataschema)
    event = event_type.decode(data)
    key = event_key(envelope, event_type, event)
    traceparent, tracestate = envelope.traceparent, envelope.tracestate
    if traceparent is None:
        traceparent, tracestate = _trace_context(span, mode, event_type.topic, envelope)
    envelope = msgspec.structs.replace(
        envelope,
        time=envelope.time or now,
        datacontenttype=envelope.datacontenttype or JSON,
        dataschema=envelope.dataschema or event_type.dataschema,
        traceparent=traceparent,
        tracestate=tracestate,
    )
    return CheckedEvent(envelope, event_type, encode_record(envelope, data, topic=event_type.topic, key=key))


def _trace_context(span: IngestSpan, mode: Mode, topic: str, envelope: Envelope) -> TraceContext:
    """Return the trace context of an event that brings none: the request's, or in a batch one of its own."""
    if mode != "batched" or span.traceparent is None:
        return TraceContext(span.traceparent, span.tracestate)
    return span.create(topic, envelope)


def _refusal(faults: Sequence[tuple[int, EventError]], events: int) -> Problem:
    listed = [entry for index, error in faults for entry in _explained(index, error)][:MAX_LISTED]
    malformed = [error for _, error in faults if isinstance(error, DecodeError)]
    unknown = [error for _, error in faults if isinstance(error, UnknownTypeError)]
    detail = str(malformed[0] if malformed else faults[0][1])
    if events > 1:
        detail = f"{len(faults)} of {events} events are refused, so none is accepted: {detail}"
    if malformed:
        return Problem(400, "malformed", "Not a CloudEvent", detail, errors=listed)
    if len(unknown) == len(faults):
        return Problem(422, "unknown-type", "Unknown event type", detail, errors=listed)
    return Problem(422, "schema", "Data do not fit the event type", detail, errors=listed)


def _explained(index: int, error: EventError) -> list[dict[str, object]]:
    if isinstance(error, SchemaError) and error.details:
        return [
            {"index": index, "location": detail.get("location", ""), "message": detail.get("message", str(error))}
            for detail in error.details
        ]
    return [{"index": index, "location": "", "message": str(error)}]
