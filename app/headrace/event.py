"""Event types: the typed data of an event, declared once with type, topic, key and schema version."""

from __future__ import annotations

import builtins  # where a parameter named `type` hides the builtin
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar, cast

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from headrace.errors import ConfigurationError, SchemaError

StructT = TypeVar("StructT", bound=msgspec.Struct)

MARK = "__headrace_event_type__"
MAX_FAULTS = 20


class EventType:
    """What the platform knows of one event type: its names and how its data go to and from JSON."""

    __slots__ = ("decode", "encode", "key_field", "model", "schema", "topic", "type", "version")

    def __init__(
        self,
        *,
        type: str,
        topic: str,
        key: str | None,
        version: int,
        model: type[Any],
        decode: Callable[[bytes], Any],
        encode: Callable[[Any], bytes],
        schema: Callable[[], dict[str, Any]],
    ) -> None:
        self.type = type
        self.topic = topic
        self.key_field = key
        self.version = version
        self.model = model
        self.decode = decode
        """JSON bytes -> model; raises SchemaError."""
        self.encode = encode
        """Model -> JSON bytes."""
        self.schema = schema
        """The JSON Schema (2020-12) of the data."""

    def __repr__(self) -> str:
        return f"EventType({self.type!r}, topic={self.topic!r}, model={self.model.__name__})"


class Event(BaseModel):
    """The base of event types: `class WalletCredited(Event, type="wallet.credited", topic="wallets", key="customer")`.

    `type` is the CloudEvents type, `topic` where such events live, `key` the field that order is kept by (default: the
    event's subject, else its id), `version` the schema's version. Data are checked strictly: JSON `"5"` is no int.
    """

    __headrace_event_type__: ClassVar[EventType]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Takes the class keywords; `__pydantic_init_subclass__` reads them once the fields are known."""
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        type: str | None = None,
        topic: str | None = None,
        key: str | None = None,
        version: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__()
        if kwargs:
            raise ConfigurationError(
                f"{cls.__name__}: {next(iter(kwargs))}= says nothing; an event type has type, topic, key and version."
            )
        if (type, topic, key, version) == (None, None, None, 1):
            return  # an abstract base of a team's own events
        names = _checked_names(cls.__name__, type, topic, key, cls.model_fields)
        validator, serializer = cls.__pydantic_validator__, cls.__pydantic_serializer__

        def decode(data: bytes) -> Any:
            try:
                return validator.validate_json(data, strict=True)
            except ValidationError as error:
                raise _schema_error(names[0], error) from error
            except Exception as error:
                raise _check_failed(names[0], error) from error

        def encode(event: Any) -> bytes:
            try:
                return serializer.to_json(event, by_alias=True)
            except PydanticSerializationError as error:
                raise SchemaError(f"{names[0]}: the event cannot be written as JSON: {error}") from error

        cls.__headrace_event_type__ = EventType(
            type=names[0],
            topic=names[1],
            key=key,
            version=version,
            model=cls,
            decode=decode,
            encode=encode,
            schema=cls.model_json_schema,
        )


def event(
    *, type: str, topic: str, key: str | None = None, version: int = 1
) -> Callable[[type[StructT]], type[StructT]]:
    """Declare a `msgspec.Struct` as an event type; the fast alternative to subclassing `Event`."""

    def declare(model: builtins.type[StructT]) -> builtins.type[StructT]:
        declared: object = model
        if not (inspect.isclass(declared) and issubclass(declared, msgspec.Struct)):
            raise ConfigurationError(f"@event declares a msgspec.Struct; {model!r} is none. Subclass headrace.Event.")
        names = _checked_names(model.__name__, type, topic, key, dict.fromkeys(model.__struct_fields__))
        decoder = msgspec.json.Decoder(model)

        def decode(data: bytes) -> Any:
            try:
                return decoder.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise SchemaError(f"{names[0]}: {error}", [{"message": str(error)}]) from error
            except Exception as error:
                raise _check_failed(names[0], error) from error

        def schema() -> dict[str, Any]:
            return msgspec.json.schema(model)

        setattr(
            model,
            MARK,
            EventType(
                type=names[0],
                topic=names[1],
                key=key,
                version=version,
                model=model,
                decode=decode,
                encode=msgspec.json.encode,
                schema=schema,
            ),
        )
        return model

    return declare


def event_type_of(model: object) -> EventType | None:
    """Return the declared event type of a model class or of an instance, or None where it was not declared.

    A declaration is not inherited: a subclass is another model, and its instances are not what the type decodes to.
    """
    declared = model if isinstance(model, type) else type(model)
    return cast("EventType | None", declared.__dict__.get(MARK))


def _checked_names(
    name: str, type: str | None, topic: str | None, key: str | None, fields: Mapping[str, object]
) -> tuple[str, str]:
    if not type or not topic:
        raise ConfigurationError(
            f'{name} needs both a type and a topic: class {name}(Event, type="thing.happened", topic="things").'
        )
    if key is not None and key not in fields:
        raise ConfigurationError(f"{name}: key={key!r} is not one of its fields ({', '.join(fields) or 'none'}).")
    return type, topic


def _schema_error(type_name: str, error: ValidationError) -> SchemaError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    details: list[dict[str, object]] = [
        {"location": ".".join(map(str, fault["loc"])), "message": fault["msg"], "type": fault["type"]}
        for fault in faults[:MAX_FAULTS]
    ]
    first = details[0]
    where = f"{first['location']}: " if first["location"] else ""
    return SchemaError(f"{type_name}: {where}{first['message']}", details)


def _check_failed(type_name: str, error: Exception) -> SchemaError:
    """A check of the team's own raised what is no verdict: the event's end, not the partition's."""
    message = f"a check of the event type raised {type(error).__name__}: {error}"
    return SchemaError(f"{type_name}: {message}", [{"message": message}])
