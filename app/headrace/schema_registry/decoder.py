"""Turns records of a topic into events by the schemas that they were written with."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from headrace.errors import ConfigurationError, DecodeError, EventError, UnknownTypeError
from headrace.event import EventType, event_type_of
from headrace.log.ports import Record
from headrace.schema_registry.framing import frame, unframe
from headrace.schema_registry.schemas import Schemas

Taker: TypeAlias = Callable[[Record, Any], object]
"""(record, its value as JSON has it) -> an instance of a declared event type, or None to skip the record."""

LIBRARIES = ("fastavro", "grpc_tools", "httpx")
"""What `headrace[registry]` installs."""


class SchemaDecoder:
    """The decoder of one topic whose records name their schemas.

    `takers`: by full name of the Avro record or Protobuf message, or title of the JSON Schema, the event type, a
    function, or None to skip such records. Raises: ConfigurationError.
    """

    def __init__(self, topic: str, takers: Mapping[str, type[Any] | Taker | None], schemas: Schemas) -> None:
        self._topic = topic
        self._schemas = schemas
        self._takers = {name: _checked(topic, name, taker) for name, taker in takers.items()}
        if not takers:
            raise ConfigurationError(
                f"the decoder of topic {topic!r} names no schema; write "
                'events.decoder(..., schemas={"full.name.of.the.record": EventClass}).'
            )
        if missing := [name for name in LIBRARIES if importlib.util.find_spec(name) is None]:
            raise ConfigurationError(
                f"the decoder of topic {topic!r} needs {', '.join(missing)}, which is not installed: pip install "
                "'headrace[registry]'."
            )

    @property
    def models(self) -> list[type[Any]]:
        """The event types that it names."""
        return [taker.model for taker in self._takers.values() if isinstance(taker, EventType)]

    @property
    def described(self) -> dict[str, str | None]:
        """What becomes of each schema: a type, a function's name, or None."""
        return {name: _shown(taker) for name, taker in sorted(self._takers.items())}

    def as_written(self, event_type: EventType, data: bytes) -> bytes:
        """Return the value of a record that is read as an event with this JSON; for tests, which have no registry.

        Raises: ConfigurationError (a function makes such events of records).
        """
        name = next((name for name, taker in self._takers.items() if taker is event_type), None)
        if name is None:
            raise ConfigurationError(
                f"the decoder of topic {self._topic!r} makes {event_type.model.__name__} with a function; test the "
                "function by itself, and the handler with an event type that is named in schemas=."
            )
        return frame(self._schemas.learn(name), data)

    def __call__(self, record: Record) -> object | None:
        """Return the event of a record; None if it is skipped.

        Raises: EventError (the bytes, the schema's name, the data), SchemaNotFetchedError, what a function raises.
        """
        if record.value is None:
            return None
        schema, data = unframe(record, record.value)
        name, value = self._read(schema, data)
        try:
            taker = self._takers[name]
        except KeyError:
            raise UnknownTypeError(
                f"the record is a {name!r} (schema {schema}), which the decoder of topic {self._topic!r} does not "
                "name; add it to schemas=, with None if such records are to be skipped."
            ) from None
        if isinstance(taker, EventType):
            event: object = taker.decode(msgspec.json.encode(value))
            return event
        return None if taker is None else taker(record, value)

    def _read(self, schema: Any, data: bytes) -> tuple[str, Any]:
        read = self._schemas.reader(schema)
        try:
            return read(data)
        except MemoryError:
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, EventError) else f"{type(error).__name__}: {error}"
            raise DecodeError(f"the record's bytes are not of its schema {schema}: {reason}") from error


def _checked(topic: str, name: str, taker: type[Any] | Taker | None) -> EventType | Taker | None:
    where = f"the decoder of topic {topic!r}, schema {name!r}"
    if (event_type := event_type_of(taker)) is not None and isinstance(taker, type):
        if event_type.topic != topic:
            raise ConfigurationError(
                f"{where}: {taker.__name__} lives on topic {event_type.topic!r}; declare it with topic={topic!r}."
            )
        return event_type
    if isinstance(taker, type) or not (taker is None or callable(taker)):
        raise ConfigurationError(
            f"{where}: {taker!r} is no event type; give a class that is declared as one, a function of (record, value) "
            "that returns an event, or None to skip such records."
        )
    return taker


def _shown(taker: EventType | Taker | None) -> str | None:
    if isinstance(taker, EventType):
        return taker.type
    return None if taker is None else name_of(taker)


def name_of(function: Callable[..., object]) -> str:
    """Return how a person calls a function, or an object that is called like one."""
    return getattr(function, "__qualname__", type(function).__qualname__)
