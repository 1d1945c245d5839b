"""What order is kept by: the key of an event."""

from __future__ import annotations

from enum import Enum

from headrace.envelope import Envelope
from headrace.errors import SchemaError
from headrace.event import EventType

MAX_KEY_CHARACTERS = 512
"""2,048 bytes in UTF-8, which fits an index row of Postgres (2,704 bytes) beside the subscription's name."""


def event_key(envelope: Envelope, event_type: EventType, event: object) -> str:
    """Return the key: `partitionkey`, else the field that the event type declares, else `subject`, else `id`.

    Raises: SchemaError (not Unicode, or longer than MAX_KEY_CHARACTERS: no index of Postgres could hold it).
    """
    key = envelope.partitionkey
    if key is None:
        key = declared_key(event_type, event) or envelope.subject or envelope.id
    return key if key.isascii() and len(key) <= MAX_KEY_CHARACTERS else check_key(key)


def check_key(key: str) -> str:
    """Return the key. Raises: SchemaError (too long, or half of a surrogate pair, which UTF-8 cannot hold)."""
    if len(key) > MAX_KEY_CHARACTERS:
        raise SchemaError(
            f"the key has {len(key):,} characters, {MAX_KEY_CHARACTERS} are the most; "
            "give the event a shorter partitionkey."
        )
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise SchemaError(
            f"the key holds text that is not Unicode at character {error.start:,} ({error.reason}); give the event "
            "another partitionkey."
        ) from None
    return key


def declared_key(event_type: EventType, event: object) -> str | None:
    """Return the text of the field that the event type declares as its key; None if there is none."""
    if event_type.key_field is None:
        return None
    value = getattr(event, event_type.key_field, None)
    if type(value) is str:
        return value
    if isinstance(value, Enum):
        value = value.value
    try:
        return None if value is None else str(value)
    except Exception as error:
        raise SchemaError(
            f"{event_type.type}: the key {event_type.key_field!r} cannot be written as text "
            f"({type(error).__name__}); declare a field that can."
        ) from error
