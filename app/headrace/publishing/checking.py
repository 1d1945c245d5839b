"""Checks one event against its type and makes a record of it, whichever way it came: HTTP, code or outbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import TypeVar
from urllib.parse import quote

import msgspec

from headrace.cloudevents import ParsedEvent, encode_record, event_key
from headrace.envelope import Envelope
from headrace.errors import UnknownTypeError
from headrace.event import EventType
from headrace.log.ports import NewRecord
from headrace.telemetry.trace_context import TraceContext, brought

JSON = "application/json"

EnvelopeT = TypeVar("EnvelopeT", bound=Envelope)
Trace = Callable[[str, Envelope], TraceContext]
"""(topic, envelope) -> the trace context of an event that brings none."""


@lru_cache(1_024)  # quoting costs as much as checking a small event
def source_of(service: str, type: str) -> str:
    """Return the source of a type's events that name none, so that an id of another type never names the same event.

    CloudEvents asks for this: `source` and `id` together name one event, for every consumer.
    """
    return f"/{quote(service)}/{quote(type)}"


class CheckedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that may be published."""

    envelope: Envelope
    event_type: EventType
    record: NewRecord


def check_event(parsed: ParsedEvent, types: Mapping[str, EventType], now: datetime, trace: Trace) -> CheckedEvent:
    """Return the event, complete. Raises: EventError (type, version, data, key, or what no record can carry)."""
    envelope, data = parsed.envelope, parsed.data
    event_type = types.get(envelope.type)
    if event_type is None:
        declared = ", ".join(sorted(name for name, each in types.items() if not each.is_internal))
        raise UnknownTypeError(f"the type {envelope.type!r} is not declared; declared are: {declared}.")
    event = event_type.decoder_of(envelope.dataschema)(data)
    key = event_key(envelope, event_type, event)
    context = brought(envelope) if envelope.traceparent is not None else trace(event_type.topic, envelope)
    envelope = completed(envelope, event_type, now, context)
    return CheckedEvent(envelope, event_type, encode_record(envelope, data, topic=event_type.topic, key=key))


def completed(envelope: EnvelopeT, event_type: EventType, now: datetime, context: TraceContext) -> EnvelopeT:
    """Return the envelope in its trace, with what its sender may have left out: time, media type and version."""
    traceparent, tracestate = context
    return msgspec.structs.replace(
        envelope,
        time=envelope.time or now,
        datacontenttype=envelope.datacontenttype or JSON,
        dataschema=envelope.dataschema or event_type.dataschema,
        traceparent=traceparent,
        tracestate=tracestate,
    )
