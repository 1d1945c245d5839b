"""What models and their values are made of: fields, nested models, and the parts that JSON cannot hold."""

from __future__ import annotations

import dataclasses
import inspect
import math
import typing
from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from pydantic import BaseModel, PlainSerializer, Secret, SecretBytes, SecretStr, WrapSerializer
from typing_extensions import TypeAliasType, is_typeddict

INFINITE = "is inf or nan, which JSON cannot hold; use None or a number"
"""The end of a sentence about a float."""

_FINITE = frozenset({str, int, bool, type(None), bytes})
_SECRETS = (Secret, SecretStr, SecretBytes)


def models_within(model: type[Any]) -> list[type[Any]]:
    """Return a model and every class that its fields, and theirs, are made of."""
    found, seen = [model], {model}
    for each in found:  # grows while it is walked
        for annotation in annotations_of(each).values():
            for part in classes_in(annotation):
                if part not in seen:
                    seen.add(part)
                    found.append(part)
    return found


def classes_in(annotation: Any, depth: int = 0) -> Iterator[type[Any]]:
    """Yield the classes that an annotation names: `dict[str, Line | None]` names dict, str, Line and NoneType."""
    if depth > 20:  # an alias may name itself
        return
    if isinstance(annotation, TypeAliasType):
        annotation = annotation.__value__
    origin = get_origin(annotation)
    if origin is Literal:
        return
    if origin is not None:
        if inspect.isclass(origin):
            yield origin
        arguments = get_args(annotation)
        for argument in arguments[:1] if origin is Annotated else arguments:
            yield from classes_in(argument, depth + 1)
    elif inspect.isclass(annotation):
        yield annotation


def secret_in(model: type[Any]) -> str | None:
    """Name the first field whose value JSON shows as asterisks, as `Account.token`; None if there is none."""
    for owner in models_within(model):
        for name, annotation in annotations_of(owner).items():
            if any(issubclass(part, _SECRETS) for part in classes_in(annotation)) and not _has_serializer(owner, name):
                return f"{owner.__name__}.{name}"
    return None


def infinite_part(value: Any) -> str | None:
    """Name the first part that is inf or nan, which JSON writes as null, as `lines.0.price`; None if there is none."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    for name, part in parts_of(value).items():
        if type(part) not in _FINITE and (found := infinite_part(part)) is not None:
            return f"{name}.{found}" if found else str(name)
    return None


def parts_of(value: Any) -> dict[Any, Any]:
    """Return the parts of a value by name, key or index; {} for a value that has none."""
    if isinstance(value, BaseModel):
        return {**value.__dict__, **value.__pydantic_extra__} if value.__pydantic_extra__ else value.__dict__
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
    return {}


def _has_serializer(owner: type[Any], name: str) -> bool:
    if not issubclass(owner, BaseModel):
        return False
    if any(isinstance(mark, (PlainSerializer, WrapSerializer)) for mark in owner.model_fields[name].metadata):
        return True
    decorators = owner.__pydantic_decorators__.field_serializers.values()
    return any(name in each.info.fields or "*" in each.info.fields for each in decorators)


def annotations_of(model: type[Any]) -> dict[str, Any]:
    """Return the fields of a model with their annotations; {} for a class that is not a model."""
    if issubclass(model, BaseModel):
        return {name: field.annotation for name, field in model.model_fields.items()}
    if issubclass(model, msgspec.Struct) or dataclasses.is_dataclass(model) or is_typeddict(model):
        try:
            return typing.get_type_hints(model, include_extras=True)
        except Exception:  # a name that is known elsewhere only
            return {}
    return {}
