"""What order is kept by: the key of an event."""

from __future__ import annotations

from enum import Enum

from headrace.envelope import Envelope
from headrace.event import EventType


def event_key(envelope: Envelope, event_type: EventType, event: object) -> str:
    """Return the key: `partitionkey`, else the field that the event type declares, else `subject`, else `id`."""
    if envelope.partitionkey is not None:
        return envelope.partitionkey
    if event_type.key_field is not None:
        value = getattr(event, event_type.key_field, None)
        if isinstance(value, Enum):
            value = value.value
        if value is not None:
            return str(value)
    return envelope.subject or envelope.id
