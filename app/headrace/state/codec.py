"""How a state's class goes to and from JSON, and the proof that nothing is lost on the way.

A state is written and read by its fields' names, never by their aliases; computed fields are not stored. What a class
can never bring back (secrets, private attributes, excluded fields) is refused when the handler is declared. What
depends on the value (inf, a number against its field's type, a subclass in a list of its base) is found when the state
is written: the JSON just made is read back and compared, so the event that did it fails, not the next cold read.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from headrace.errors import ConfigurationError
from headrace.fields import INFINITE, infinite_part, models_within, secret_in
from headrace.keeping import keeping_of
from headrace.state.difference import faults_of, first_difference, lost_bound
from headrace.state.plain import plain_check


class StateType:
    """One state of a subscription: its name (the class's, in lower case), and its JSON form."""

    __slots__ = ("create", "decode", "encode", "keeping", "model", "name", "write")

    def __init__(self, model: type[Any]) -> None:
        self.model = model
        self.name = model.__name__.lower()
        self.keeping = keeping_of(model)
        """How long it is kept, and the version of the class."""
        self.create: Callable[[], Any] = model
        """Return a new value, for a key never seen."""
        self.decode: Callable[[bytes], Any]
        """JSON bytes -> value. Raises: what the class raises, also for a stored member that it does not have."""
        self.write: Callable[[Any], bytes]
        """Value -> JSON bytes, without the proof that they can be read back."""
        self.encode: Callable[[Any], bytes]
        """Value -> JSON bytes that `decode` to an equal value. Raises: ValueError if they do not, in one sentence."""
        if not issubclass(model, (BaseModel, msgspec.Struct)):
            raise ConfigurationError(
                f"State[{model.__name__}]: a state is a pydantic.BaseModel or a msgspec.Struct; "
                f"make {model.__name__} one."
            )
        value = _created(model)  # first, since it completes a model with forward references
        _refuse_what_is_never_stored(model)
        if issubclass(model, BaseModel):
            self.decode, self.write, self.encode = _pydantic_codec(model)
        else:
            self.decode, self.write, self.encode = _msgspec_codec(model)
        self._prove(value)
        self.encode = _quicker(self.encode, self.write, plain_check(model))

    def load(self, stored: bytes, version: int | None = None) -> tuple[Any, bytes]:
        """Return the value of stored JSON, and the bytes that `write` makes of it as long as nobody changes it.

        What another `version` of the class has written is brought up, and has no bytes yet.
        Raises: ValueError if the class does not fit what is stored, in one sentence; MemoryError.
        """
        is_older = version is not None and version != self.keeping.version
        if is_older:
            stored = self.keeping.raised(stored, version or 1)
        try:
            value = self.decode(stored)
        except MemoryError:
            raise
        except Exception as error:
            raise ValueError(_unreadable(self.model, error)) from error
        written = self.write(value)
        if isinstance(value, msgspec.Struct):
            _refuse_lost_members(self.model, stored, written)
        return value, b"" if is_older else written

    def copy(self, value: Any) -> Any:
        """Return a deep copy; values that cannot be copied are written and read again."""
        try:
            return deepcopy(value)
        except Exception:
            return self.decode(self.write(value))

    def _prove(self, value: Any) -> None:
        name = self.model.__name__
        try:
            read = self.decode(self.encode(value))
        except Exception as error:
            raise ConfigurationError(f"{error} A new key starts from {name}().") from error
        if (bound := lost_bound(value, read)) is not None:
            raise ConfigurationError(
                f"State[{name}]: the deque {bound!r} comes back without its maxlen; keep a list, and cut it yourself."
            )
        if isinstance(read, BaseModel):
            missing = set(type(read).model_fields) - read.model_fields_set
        else:
            members = msgspec.json.decode(self.write(value))
            missing = set(read.__struct_encode_fields__) - set(members) if isinstance(members, dict) else set()
        if missing:
            raise ConfigurationError(
                f"State[{name}]: the field {min(missing)!r} of {name}() is not stored; remove exclude, exclude_if "
                "or omit_defaults, since every field of a state is kept."
            )


def _quicker(
    encode: Callable[[Any], bytes], write: Callable[[Any], bytes], is_plain: Callable[[Any], bool] | None
) -> Callable[[Any], bytes]:
    """Return `encode` without the proof for values that need none: a third of the time for a state of a few numbers."""
    if is_plain is None:
        return encode
    return lambda value: write(value) if is_plain(value) else encode(value)


Codec = tuple[Callable[[bytes], Any], Callable[[Any], bytes], Callable[[Any], bytes]]


def _pydantic_codec(model: type[BaseModel]) -> Codec:
    # A model that says `extra` decides itself about members that it does not have; else they are refused.
    is_explicit = any(
        issubclass(owner, BaseModel) and owner.model_config.get("extra") in ("allow", "ignore")
        for owner in models_within(model)
    )
    decode = partial(
        model.__pydantic_validator__.validate_json,
        by_alias=False,
        by_name=True,
        extra=None if is_explicit else "forbid",
    )
    to_json = model.__pydantic_serializer__.to_json

    def write(value: Any) -> bytes:
        # Without warnings: a value against its type is not warned about but refused, when it is read back.
        return to_json(value, by_alias=False, exclude_computed_fields=True, warnings=False)

    def encode(value: Any) -> bytes:
        raw = to_json(value, by_alias=False, exclude_computed_fields=True, warnings=False)
        try:
            read = decode(raw)
        except Exception as error:
            raise _not_kept(model, value, error) from error
        # Faster than the models' own ==, which decides if the two differ (a cached_property is no field).
        is_same = read.__dict__ == value.__dict__ and read.__pydantic_extra__ == value.__pydantic_extra__
        if not is_same and read != value:
            raise _not_same(model, value, read)
        return raw

    return decode, write, encode


def _msgspec_codec(model: type[msgspec.Struct]) -> Codec:
    write, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(model).decode

    def encode(value: Any) -> bytes:
        raw = write(value)
        try:
            raw.decode()  # a msgspec.Raw is written as it is, and nobody has looked at its bytes
            read = decode(raw)
        except Exception as error:
            raise _not_kept(model, value, error) from error
        if read != value:
            raise _not_same(model, value, read)
        return raw

    return decode, write, encode


def _created(model: type[Any]) -> Any:
    try:
        return model()
    except Exception as error:
        raise ConfigurationError(
            f"State[{model.__name__}]: {model.__name__}() must work, since a new key starts from it: "
            "give every field a default."
        ) from error


def _refuse_what_is_never_stored(model: type[Any]) -> None:
    where = f"State[{model.__name__}]"
    if (secret := secret_in(model)) is not None:
        raise ConfigurationError(
            f"{where}: {secret} is a secret, which JSON shows as asterisks; write str, or give it a field_serializer."
        )
    for owner in models_within(model):
        if not issubclass(owner, BaseModel):
            continue
        for name, field in owner.model_fields.items():
            if field.exclude:
                raise ConfigurationError(
                    f"{where}: {owner.__name__}.{name} has exclude=True, so it is not stored; remove exclude=True, "
                    "or remove the field."
                )
        for name in owner.__private_attributes__:
            raise ConfigurationError(
                f"{where}: the private attribute {owner.__name__}.{name} is not stored; make it a field, or remove it."
            )


def _not_kept(model: type[Any], value: Any, error: Exception) -> ValueError:
    infinite = infinite_part(value)
    return _refused(model, f"{infinite} {INFINITE}" if infinite is not None else faults_of(error))


def _not_same(model: type[Any], value: Any, read: Any) -> ValueError:
    return _refused(model, first_difference(value, read) or f"give {model.__name__} a plain __eq__")


def _refused(model: type[Any], reason: str) -> ValueError:
    return ValueError(f"State[{model.__name__}]: the value would not come back from its JSON: {reason.rstrip('.')}.")


def _unreadable(model: type[Any], error: Exception) -> str:
    if isinstance(error, ValidationError):
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
                member = ".".join(map(str, fault["loc"]))
                return (
                    f"{model.__name__} has no field for the stored member {member!r}; rename or remove it in a "
                    "@model_validator(mode='before'), or say extra='ignore' to drop it."
                )
    return f"the stored JSON does not fit {model.__name__}: {faults_of(error)}"


def _refuse_lost_members(model: type[Any], stored: bytes, written: bytes) -> None:
    before, after = msgspec.json.decode(stored), msgspec.json.decode(written)
    if before == after:
        return
    if lost := _members(before) - _members(after):
        raise ValueError(
            f"{model.__name__} has no field for the stored member {min(lost)!r}; keep its name with rename={{...}}, "
            "or remove the member from headrace.state."
        )


def _members(value: Any, path: str = "") -> set[str]:
    """Return the paths of all members; the entries of an array share one, since a set has no order."""
    if isinstance(value, dict):
        return {f"{path}{name}" for name in value}.union(*(_members(v, f"{path}{n}.") for n, v in value.items()))
    if isinstance(value, list):
        return set().union(*(_members(each, f"{path}*.") for each in value))
    return set()
