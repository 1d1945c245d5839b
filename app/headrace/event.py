"""Event types: the typed data of an event, declared once with type, topic, key and schema version."""

from __future__ import annotations

import builtins  # a parameter named `type` hides the builtin
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NoReturn, TypeVar, Unpack, cast

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError

from headrace.errors import ConfigurationError, SchemaError
from headrace.fields import INFINITE, infinite_part, secret_in
from headrace.keeping import Keeping, keeping_of

StructT = TypeVar("StructT", bound=msgspec.Struct)

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
"""What brings an event's data from one version of its class to the next."""
UpcastT = TypeVar("UpcastT", bound=Upcast)

MARK = "__headrace_event_type__"
MAX_FAULTS = 20


class EventType:
    """What the platform knows of one event type: its names and how its data go to and from JSON."""

    __slots__ = (
        "dataschema",
        "decode",
        "encode",
        "is_internal",
        "key_field",
        "model",
        "schema",
        "topic",
        "type",
        "upcasts",
        "version",
    )

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
        is_internal: bool = False,
    ) -> None:
        self.type = type
        self.topic = topic
        self.key_field = key
        self.version = version
        self.dataschema = f"{type}/v{version}" if version > 1 else None
        """The CloudEvents attribute of events that are published now; a missing one means version 1."""
        self.model = model
        self.decode = decode
        """JSON bytes -> model. Raises: SchemaError, whatever the model's own checks raise."""
        self.encode = encode
        """Model -> JSON bytes. Raises: SchemaError (inf or nan), and what the model's own serializers raise."""
        self.schema = schema
        """The JSON Schema (2020-12) of the data."""
        self.is_internal = is_internal
        """True if the HTTP door refuses such events: the service itself publishes them."""
        self.upcasts: dict[int, Upcast] = {}
        """What brings data of a version to the next one; a version without it has no change that needs one."""

    def decode_version(self, data: bytes, version: int) -> Any:
        """Return the model of JSON that was written with a version of the class. Raises: SchemaError."""
        if version < self.version and self.upcasts:
            data = self._upcast(data, version)
        elif version > self.version:
            self._refuse_newer(str(version))
        return self.decode(data)

    def decoder_of(self, dataschema: str | None) -> Callable[[bytes], Any]:
        """Return what reads the data of an event that is published now: without `dataschema` it has this version.

        Raises: SchemaError (newer), and so does what is returned.
        """
        version = self.version if dataschema is None else self.version_of(dataschema)
        if version == self.version or not self.upcasts:
            return self.decode
        return partial(self.decode_version, version=version)

    def version_of(self, dataschema: str | None) -> int:
        """Return the version that an event was written with, as its `dataschema` says. Raises: SchemaError (newer).

        The last parts of `dataschema` name type and version: `wallet.credited/v2`. Others are somebody else's schemas.
        A type may hold a `/` itself.
        """
        if dataschema is None:
            return 1
        name, _, version = dataschema.rpartition("/v")
        if not (version.isascii() and version.isdigit() and f"/{name}".endswith(f"/{self.type}")):
            return self.version
        if len(version) > 9 or int(version) > self.version:
            self._refuse_newer(version)
        return int(version)

    def _upcast(self, data: bytes, version: int) -> bytes:
        value = msgspec.json.decode(data)
        for each in range(version, self.version):
            if (upcast := self.upcasts.get(each)) is None:
                continue
            try:
                value = upcast(value)
            except Exception as error:
                raise SchemaError(
                    f"{self.type}: the upcaster of version {each} raised {type(error).__name__}: {error}"
                ) from error
        return msgspec.json.encode(value)

    def check_version(self, dataschema: str) -> None:
        """Raise SchemaError if the event's `dataschema` names a newer version of this type than the class has."""
        self.version_of(dataschema)

    def _refuse_newer(self, version: str) -> NoReturn:
        raise SchemaError(
            f"{self.type}: the event has version {version[:9]} and this service knows version {self.version}; "
            "deploy the class of that version, then replay the dead letter."
        )

    def __repr__(self) -> str:
        return f"EventType({self.type!r}, topic={self.topic!r}, model={self.model.__name__})"


class Event(BaseModel):
    """The base of event types: `class WalletCredited(Event, type="wallet.credited", topic="wallets", key="customer")`.

    `type` is the CloudEvents type, `topic` the topic of such events, `key` the field that order is kept by (default:
    the event's subject, else its id). `version` is the schema's version: events carry it as `dataschema` if it is
    above 1, and an event of a newer version than the class becomes a dead letter. An `internal` type is published by
    the service's own code and handlers, and refused over HTTP. Data are checked strictly: JSON `"5"` is not an int.
    """

    __headrace_event_type__: ClassVar[EventType]

    def __init_subclass__(
        cls,
        *,
        type: str | None = None,
        topic: str | None = None,
        key: str | None = None,
        version: int = 1,
        internal: bool = False,
        **config: Unpack[ConfigDict],
    ) -> None:
        """Name the class keywords for type checkers; `__pydantic_init_subclass__` reads them, once fields are known."""
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        type: str | None = None,
        topic: str | None = None,
        key: str | None = None,
        version: int = 1,
        internal: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__()
        if kwargs:
            raise ConfigurationError(
                f"{cls.__name__}: {next(iter(kwargs))}= is not known; "
                "an event type has type, topic, key, version and internal."
            )
        if (type, topic, key, version, internal) == (None, None, None, 1, False):
            return  # an abstract base of a team's own events
        names = _checked_names(cls, type, topic, key, version, cls.model_fields)
        validator, serializer = cls.__pydantic_validator__, cls.__pydantic_serializer__

        def decode(data: bytes) -> Any:
            try:
                return validator.validate_json(data, strict=True)
            except ValidationError as error:
                raise _schema_error(names[0], error) from error
            except MemoryError:
                raise
            except Exception as error:
                raise _check_failed(names[0], error) from error

        def encode(event: Any) -> bytes:
            try:
                data = serializer.to_json(event, by_alias=True)
            except PydanticSerializationError as error:
                raise SchemaError(f"{names[0]}: the event cannot be written as JSON: {error}") from error
            return data if b"null" not in data else _checked_finite(names[0], event, data)

        cls.__headrace_event_type__ = EventType(
            type=names[0],
            topic=names[1],
            key=key,
            version=version,
            model=cls,
            decode=decode,
            encode=encode,
            schema=cls.model_json_schema,
            is_internal=internal,
        )


def event(
    *, type: str, topic: str, key: str | None = None, version: int = 1, internal: bool = False
) -> Callable[[type[StructT]], type[StructT]]:
    """Declare a `msgspec.Struct` as an event type; the fast alternative to subclassing `Event`."""

    def declare(model: builtins.type[StructT]) -> builtins.type[StructT]:
        declared: object = model
        if not (inspect.isclass(declared) and issubclass(declared, msgspec.Struct)):
            raise ConfigurationError(
                f"@event declares a msgspec.Struct; {model!r} is not one. Subclass headrace.Event."
            )
        names = _checked_names(model, type, topic, key, version, dict.fromkeys(model.__struct_fields__))
        decoder = msgspec.json.Decoder(model)
        to_json = msgspec.json.Encoder().encode

        def decode(data: bytes) -> Any:
            try:
                return decoder.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise SchemaError(f"{names[0]}: {error}", [{"message": str(error)}]) from error
            except MemoryError:
                raise
            except Exception as error:
                raise _check_failed(names[0], error) from error

        def encode(event: Any) -> bytes:
            data = to_json(event)
            return data if b"null" not in data else _checked_finite(names[0], event, data)

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
                encode=encode,
                schema=schema,
                is_internal=internal,
            ),
        )
        return model

    return declare


def upcast(model: builtins.type[Any], *, version: int) -> Callable[[UpcastT], UpcastT]:
    """Declare what brings data of a version to the next one: `@upcast(MoneyWithdrawn, version=1)`.

    It is for event types, and for classes of states that say `@keep(version=2)`. The function takes the JSON object
    that was written, and returns one. Events of the log and of the event store, and states, pass the upcasters of their
    version and of those behind it. Raises: ConfigurationError.
    """
    kept = event_type_of(model) or keeping_of(model)
    name = model.__name__
    if isinstance(kept, Keeping) and kept.version == 1:
        raise ConfigurationError(f"@upcast({name}): it is not an event type, nor a state with @keep(version=2).")
    if not 1 <= version < kept.version:
        raise ConfigurationError(
            f"@upcast({name}, version={version!r}): {name} has version {kept.version}, so the versions to bring "
            f"up are 1 to {kept.version - 1}; raise version= of the class with each change of its fields."
        )
    if version in kept.upcasts:
        raise ConfigurationError(f"@upcast({name}, version={version}) is there twice; keep one.")

    def declare(function: UpcastT) -> UpcastT:
        kept.upcasts[version] = function
        return function

    return declare


def event_type_of(model: object) -> EventType | None:
    """Return the declared event type of a model class or of an instance, or None if it was not declared.

    A declaration is not inherited: a subclass is another model, and its instances are not what the type decodes to.
    """
    declared = model if isinstance(model, type) else type(model)
    return cast("EventType | None", declared.__dict__.get(MARK))


def _checked_names(
    model: builtins.type[Any],
    type: str | None,
    topic: str | None,
    key: str | None,
    version: int,
    fields: Mapping[str, object],
) -> tuple[str, str]:
    name = model.__name__
    if not type or not topic:
        raise ConfigurationError(
            f'{name} needs both a type and a topic: class {name}(Event, type="thing.happened", topic="things").'
        )
    if key is not None and key not in fields:
        raise ConfigurationError(f"{name}: key={key!r} is not one of its fields ({', '.join(fields) or 'none'}).")
    if builtins.type(version) is not int or version < 1:
        raise ConfigurationError(f"{name}: version={version!r} must be an integer from 1 on.")
    if (secret := secret_in(model)) is not None:
        raise ConfigurationError(
            f"{name}: {secret} is a secret, which JSON shows as asterisks; write str, or give it a field_serializer."
        )
    return type, topic


def _checked_finite(type_name: str, event: object, data: bytes) -> bytes:
    """Return the data. Raises: SchemaError if a null in them was inf or nan."""
    if (part := infinite_part(event)) is not None:
        raise SchemaError(f"{type_name}: {part} {INFINITE}.")
    return data


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
    """A validator raised something other than a validation error: this event is refused, the partition continues."""
    message = f"a check of the event type raised {type(error).__name__}: {error}"
    return SchemaError(f"{type_name}: {message}", [{"message": message}])
