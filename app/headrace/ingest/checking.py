"""Checks parsed events against their types and makes records of them: all of a request, or none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headrace.cloudevents import Mode, ParsedEvent
from headrace.errors import DecodeError, EventError, SchemaError, UnknownTypeError
from headrace.event import EventType
from headrace.http.problems import Problem
from headrace.publishing.checking import CheckedEvent, check_event

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
    public: set[str] = set()
    now, trace = datetime.now(UTC), span.create if mode == "batched" else span.carry
    for index, outcome in enumerate(parsed):
        if index % YIELD_EVENTS == YIELD_EVENTS - 1:
            await asyncio.sleep(0)
        if isinstance(outcome, DecodeError):
            faults.append((index, outcome))
            continue
        try:
            if outcome.envelope.type not in public:
                _refuse_internal(outcome, types)
                public.add(outcome.envelope.type)
            checked.append(check_event(outcome, types, now, trace))
        except EventError as error:
            faults.append((index, error))
    if faults:
        raise _refusal(faults, len(parsed))
    return checked


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
