"""What is read from a stream: events of today's classes, whatever version of the schema they were written with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from headrace.errors import ConfigurationError, SchemaError
from headrace.event import EventType


@dataclass(frozen=True)
class StoredEvent:
    """One event of a stream."""

    event: Any
    """An instance of its type's class, brought up to the class's version by its upcasters."""
    type: str
    version: int
    """Its place in the stream, from 1 on."""
    id: str
    """The id that it has as a CloudEvent."""
    appended_at: datetime
    correlation_id: str | None
    causation_id: str | None


class Appended(NamedTuple):
    """What an append did: the stream's version afterwards, and the ids that the events have as CloudEvents."""

    version: int
    ids: list[str]


def event_id(stream: str, key: str, version: int) -> str:
    """Return the id of a stream's event: no other event of the service's type has it."""
    return f"{stream}/{key}/{version}"


def stored_event(types: Mapping[str, EventType], stream: str, key: str, row: Mapping[str, Any]) -> StoredEvent:
    """Return the event of a row. Raises: ConfigurationError (its type is not declared, or its class does not fit)."""
    where = f"the stream {stream!r} of {key!r}, version {row['version']}"
    event_type = types.get(row["type"])
    if event_type is None:
        raise ConfigurationError(f"{where}: the type {row['type']!r} is not declared; declare its class as it was.")
    try:
        event = event_type.decode_version(row["data"].encode(), row["schema_version"])
    except SchemaError as error:
        raise ConfigurationError(
            f"{where}: {str(error).rstrip('.')}; the event was written with version {row['schema_version']} of its "
            f"class, so add an @upcast({event_type.model.__name__}, version={row['schema_version']})."
        ) from error
    return StoredEvent(
        event=event,
        type=row["type"],
        version=row["version"],
        id=event_id(stream, key, row["version"]),
        appended_at=row["appended_at"],
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
    )
