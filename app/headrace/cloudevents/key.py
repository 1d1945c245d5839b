"""What order is kept by: the key of an event."""

from __future__ import annotations

from enum import Enum

from headrace.envelope import Envelope
from headrace.event import EventType


def event_key(envelope: Envelope, event_type: EventType, event: object) -> str:
    """Return the key: `partitionkey`, else the field that the event type declares, else `subject`, else `id`."""
    if envelope.partitionkey is not None:
        return envelope.partitionkey
    return declared_key(event_type, event) or envelope.subject or envelope.id


def declared_key(event_type: EventType, event: object) -> str | None:
    """Return the text of the field that the event type declares as its key; None where it has none, or it is empty."""
    if event_type.key_field is None:
        return None
    value = getattr(event, event_type.key_field, None)
    if type(value) is str:
        return value
    if isinstance(value, Enum):
        value = value.value
    return None if value is None else str(value)
