"""The columns of a row's class: Pydantic models and dataclasses."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from headrace.errors import ConfigurationError

TYPES: dict[type[Any], str] = {
    str: "text",
    bool: "boolean",
    int: "bigint",
    float: "double precision",
    Decimal: "numeric",
    datetime: "timestamptz",
    date: "date",
    timedelta: "interval",
    UUID: "uuid",
    bytes: "bytea",
}
"""Classes with a type of their own in Postgres; everything else is kept as jsonb."""
JSONB = "jsonb"
NUMBERS = ("bigint", "double precision", "numeric")
ORDERED = (*NUMBERS, "timestamptz", "date", "interval")
"""Types whose values are asked for by bounds."""


class Column:
    """One column: its name and type in Postgres, and how a value goes in and comes out."""

    def __init__(self, name: str, annotation: Any) -> None:
        self.name = name
        self.annotation = annotation
        self.adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        inner, self.is_nullable = _without_none(annotation)
        self.type = _type_of(inner)
        self.is_json = self.type == JSONB
        self.parameter = "text" if self.is_json else self.type
        """The type that a value has as an argument of a statement."""

    @property
    def is_number(self) -> bool:
        """True if it can be added to."""
        return self.type in NUMBERS

    def dump(self, value: Any) -> Any:
        """Return the value as an argument of a statement; a time without a zone is in UTC."""
        if value is None:
            return None
        if self.is_json:
            return self.adapter.dump_json(value).decode()
        plain = value.value if isinstance(value, Enum) else value
        if isinstance(plain, datetime) and plain.tzinfo is None:
            return plain.replace(tzinfo=UTC)  # asyncpg would take it to be in the process's own zone
        return plain

    def checked(self, value: Any) -> Any:
        """Return a value that fits the column. Raises: ValidationError."""
        return self.adapter.validate_python(value)

    def load(self, stored: Any) -> Any:
        """Return what a row of the class takes, of what Postgres has."""
        return self.adapter.validate_json(stored) if self.is_json and stored is not None else stored


def columns_of(model: Any, where: str) -> dict[str, Column]:
    """Return the columns of a row's class, in the order of its fields. Raises: ConfigurationError."""
    is_dataclass = isinstance(model, type) and dataclasses.is_dataclass(model)
    if not is_dataclass and not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ConfigurationError(f"{where}: a row is a Pydantic model or a dataclass, not {model!r}.")
    if is_dataclass:
        hints = typing.get_type_hints(model, include_extras=True)
        annotations = {field.name: hints[field.name] for field in dataclasses.fields(model)}
    else:
        annotations = {name: field.annotation for name, field in model.model_fields.items()}
    for name in annotations:
        if not (name.isascii() and name.isidentifier() and name == name.lower() and len(name) <= 59):
            raise ConfigurationError(
                f"{where}: the field {name!r} cannot be a column; write it with at most 59 of a-z, 0-9 and '_'."
            )
    return {name: Column(name, annotation) for name, annotation in annotations.items()}


def default_of(model: Any, name: str) -> tuple[bool, Any]:
    """Tell whether a field has a default, and return it."""
    if issubclass(model, BaseModel):
        field = model.model_fields[name]
        return not field.is_required(), None if field.is_required() else field.get_default(call_default_factory=True)
    (found,) = (each for each in dataclasses.fields(model) if each.name == name)
    if found.default is not dataclasses.MISSING:
        return True, found.default
    factory: Callable[[], Any] | Any = found.default_factory
    return factory is not dataclasses.MISSING, None if factory is dataclasses.MISSING else factory()


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [each for each in get_args(annotation) if each is not type(None)]
        is_nullable = len(members) < len(get_args(annotation))
        if len(members) == 1:
            return _without_none(members[0])[0], is_nullable
        return annotation, is_nullable
    return annotation, annotation in (None, type(None), Any)


def _type_of(inner: Any) -> str:
    if get_origin(inner) is Literal:
        kinds = {type(each) for each in get_args(inner)}
        return TYPES.get(kinds.pop(), JSONB) if len(kinds) == 1 else JSONB
    if not isinstance(inner, type):
        return JSONB
    if issubclass(inner, Enum):
        kinds = {type(each.value) for each in inner}
        return TYPES.get(kinds.pop(), JSONB) if len(kinds) == 1 else JSONB
    return TYPES.get(inner, JSONB)
