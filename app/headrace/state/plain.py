"""States of plain fields, whose JSON needs no reading back: a glance at the values' types proves the round trip."""

from __future__ import annotations

import math
from collections.abc import Callable
from keyword import iskeyword
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel

PLAIN: dict[type[Any], str] = {int: "int", str: "str", bool: "bool", float: "float", NoneType: "NoneType"}
"""Types whose values JSON brings back as they are, a float if it is finite."""

LEAST, MOST = -(2**63), 2**63 - 1
"""JSON brings any integer of 64 bits back; Pydantic writes larger ones than it reads."""

HARMLESS = frozenset(
    {"title", "alias_generator", "populate_by_name", "validate_by_name", "validate_by_alias", "frozen",
     "validate_assignment", "extra", "from_attributes", "use_attribute_docstrings"}
)  # fmt: skip
"""Settings of a model that change nothing about how plain values are written and read by name."""

SCHEMA = "__get_pydantic_core_schema__"


def plain_check(model: type[Any]) -> Callable[[Any], bool] | None:
    """Return a function that tells whether a value consists of plain values alone, each of its field's very type.

    None if the model is not that simple: constraints, validators, serializers, other types. A False says only that a
    glance proves nothing.
    """
    fields = _pydantic_fields(model) if issubclass(model, BaseModel) else _struct_fields(model)
    if not fields:
        return None
    tests = []
    for name, allowed in fields.items():
        if not (name.isidentifier() and not iskeyword(name) and allowed and allowed <= PLAIN.keys()):
            return None
        value = f"value.{name}"
        kinds = [f"type({value}) is {PLAIN[kind]}" for kind in sorted(allowed - {int, float}, key=str)]
        kinds += [f"type({value}) is int and LEAST <= {value} <= MOST"] if int in allowed else []
        kinds += [f"type({value}) is float and isfinite({value})"] if float in allowed else []
        tests.append(f"({' or '.join(kinds)})")
    names = {"isfinite": math.isfinite, "NoneType": NoneType, "LEAST": LEAST, "MOST": MOST}
    code = f"lambda value: {' and '.join(tests)}"
    check: Callable[[Any], bool] = eval(code, names)  # noqa: S307 - built from the fields' own names
    return check


def _pydantic_fields(model: type[BaseModel]) -> dict[str, set[type[Any]]]:
    decorators = model.__pydantic_decorators__
    is_simple = (
        set(model.model_config) <= HARMLESS
        and model.model_config.get("extra") != "allow"
        and not any(getattr(decorators, slot) for slot in decorators.__slots__)
        and not any(_is_overridden(model, name) for name in ("__init__", "model_post_init", SCHEMA))
    )
    fields = model.model_fields.values()
    if not is_simple or any(field.metadata or getattr(field, "exclude_if", None) for field in fields):
        return {}
    return {name: _members(field.annotation) for name, field in model.model_fields.items()}


def _is_overridden(model: type[BaseModel], name: str) -> bool:
    return any(name in vars(owner) for owner in model.__mro__[: model.__mro__.index(BaseModel)])


def _struct_fields(model: type[msgspec.Struct]) -> dict[str, set[type[Any]]]:
    config = model.__struct_config__
    if config.tag is not None or config.array_like or hasattr(model, "__post_init__"):
        return {}
    hints = {field.name: field.type for field in msgspec.structs.fields(model)}
    return {name: _members(hint) for name, hint in hints.items()}


def _members(hint: Any) -> set[type[Any]]:
    """Return the classes of a union, or the class itself; nothing if there is anything else."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    classes = {NoneType if member is None else member for member in members}
    return classes if all(type(member) is type for member in classes) else set()
