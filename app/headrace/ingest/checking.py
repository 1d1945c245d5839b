"""Checks parsed events against their types and makes records of them: all of a request, or none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headrace.cloudevents import Mode, ParsedEvent
from headrace.errors import DecodeError, EventError, SchemaError, UnknownTypeError
from headrace.event import EventType
from headrace.http.problems import Problem
from headrace.ingest.columns import check_at_once
from headrace.publishing.checking import CheckedEvent, Trace, check_event

if TYPE_CHECKING:
    from headrace.telemetry.spans import IngestSpan

MAX_LISTED = 100
"""Faults listed in one answer; the count is complete."""

YIELD_EVENTS = 200
"""Events checked before other requests get a turn, about 3 ms."""


async def check_all(
    parsed: Sequence[ParsedEvent | DecodeError], types: Mapping[str, EventType], span: IngestSpan, mode: Mode
) -> list[CheckedEvent]:
    """Return every event, checked. Raises: Problem 400 or 422 that lists every event at fault by its index."""
    checked: list[CheckedEvent] = []
    faults: list[tuple[int, EventError]] = []
    now, trace = datetime.now(UTC), span.create if mode == "batched" else span.carry
    for begin in range(0, len(parsed), YIELD_EVENTS):
        if begin:
            await asyncio.sleep(0)
        part = parsed[begin : begin + YIELD_EVENTS]
        plain = check_at_once(part, types, now, span) if mode == "batched" else None
        checked += _one_by_one(part, begin, types, now, trace, faults) if plain is None else plain
    if faults:
        raise _refusal(faults, len(parsed))
    return checked


def _one_by_one(
    parsed: Sequence[ParsedEvent | DecodeError],
    begin: int,
    types: Mapping[str, EventType],
    now: datetime,
    trace: Trace,
    faults: list[tuple[int, EventError]],
) -> Iterator[CheckedEvent]:
    """Yield the events that are right, and note the others as faults; the first one has the index `begin`."""
    for index, outcome in enumerate(parsed, begin):
        if isinstance(outcome, DecodeError):
            faults.append((index, outcome))
            continue
        try:
            _refuse_internal(outcome, types)
            yield check_event(outcome, types, now, trace)
        except EventError as error:
            faults.append((index, error))


def _refuse_internal(parsed: ParsedEvent, types: Mapping[str, EventType]) -> None:
    event_type = types.get(parsed.envelope.type)
    if event_type is not None and event_type.is_internal:
        raise UnknownTypeError(f"the type {event_type.type!r} is internal: the service alone publishes it.")


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
