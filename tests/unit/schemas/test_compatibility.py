"""A new schema has to accept what the old one does: of classes of Pydantic and msgspec, and what changes in them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from headrace.schemas.compatibility import faults


class Line(BaseModel):
    sku: str
    quantity: int


class StrictLine(Line):
    model_config = ConfigDict(extra="forbid")


class LineOfUnit(Line):
    unit: str


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


def schema(**fields: Any) -> dict[str, Any]:
    """Return the schema of a class with these fields: types, or (type, default)."""
    described: dict[str, Any] = {
        name: each if isinstance(each, tuple) else (each, ...) for name, each in fields.items()
    }
    made: type[BaseModel] = create_model("Placed", **described)
    return made.model_json_schema()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": str}, {"a": str}),
        ({"a": str}, {"a": str, "b": (int, 0)}),
        ({"a": str, "b": int}, {"a": str}),
        ({"a": str}, {"a": (str, "x")}),
        ({"a": int}, {"a": float}),
        ({"a": int}, {"a": int | None}),
        ({"a": int}, {"a": int | str}),
        ({"a": int | None}, {"a": str | int | None}),
        ({"a": Literal["x"]}, {"a": Literal["x", "y"]}),
        ({"a": Color}, {"a": str}),
        ({"a": Literal["red"]}, {"a": Color}),
        ({"a": Annotated[int, Field(ge=1)]}, {"a": int}),
        ({"a": Annotated[int, Field(ge=1)]}, {"a": Annotated[int, Field(ge=0)]}),
        ({"a": Annotated[str, Field(max_length=3)]}, {"a": Annotated[str, Field(max_length=5)]}),
        ({"a": datetime}, {"a": str}),
        ({"a": list[int]}, {"a": list[float]}),
        ({"a": list[Line]}, {"a": list[Line] | None}),
        ({"a": tuple[int, str]}, {"a": list[int | str]}),
        ({"a": dict[str, int]}, {"a": dict[str, int | None]}),
        ({"a": Line}, {"a": Any}),
        ({"a": LineOfUnit}, {"a": Line}),
        ({"a": Line}, {"a": StrictLine}),
    ],
)
def test_what_can_be_read_has_no_fault(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert faults(schema(**old), schema(**new)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ({"a": str}, {"a": str, "b": int}, "b: it is new and required; give it a default"),
        ({"a": (str, "x")}, {"a": str}, "a: it is required; give it a default"),
        ({"a": str}, {"a": int}, "a: it was string and is integer"),
        ({"a": float}, {"a": int}, "a: it was number and is integer"),
        ({"a": int | None}, {"a": int}, "a: it was null and is integer"),
        ({"a": int | str}, {"a": int | None}, "a: string fits none of integer, null"),
        ({"a": Any}, {"a": int}, "a: it was anything and is integer"),
        ({"a": Literal["x", "y"]}, {"a": Literal["x"]}, "a: 'y' is not accepted any more"),
        ({"a": str}, {"a": Literal["x"]}, "a: only 'x' are accepted from now on"),
        ({"a": int}, {"a": Annotated[int, Field(ge=1)]}, "a: minimum was not set and is 1"),
        (
            {"a": Annotated[str, Field(max_length=5)]},
            {"a": Annotated[str, Field(max_length=3)]},
            "a: maxLength was 5 and is 3",
        ),
        ({"a": str}, {"a": datetime}, "a: format was not set and is date-time"),
        ({"a": Decimal}, {"a": str}, "a: it was number and is string"),
        ({"a": list[str]}, {"a": list[int]}, "a[]: it was string and is integer"),
        ({"a": list[Line]}, {"a": list[LineOfUnit]}, "a[].unit: it is new and required; give it a default"),
        ({"a": tuple[int, str]}, {"a": tuple[int, int]}, "a[1]: it was string and is integer"),
        ({"a": dict[str, str]}, {"a": dict[str, int]}, "a.*: it was string and is integer"),
        ({"a": LineOfUnit}, {"a": StrictLine}, "a.unit: it is gone, and the class refuses what it does not know"),
    ],
)
def test_what_cannot_be_read_is_named(old: dict[str, Any], new: dict[str, Any], fault: str) -> None:
    assert faults(schema(**old), schema(**new)) == [fault]


def test_structs_are_compared_as_well() -> None:
    old = msgspec.json.schema(msgspec.defstruct("Placed", [("a", int), ("b", list[str])]))
    same = msgspec.json.schema(msgspec.defstruct("Placed", [("a", int), ("b", list[str]), ("c", str, "x")]))
    other = msgspec.json.schema(msgspec.defstruct("Placed", [("a", str), ("b", list[str])]))
    assert faults(old, same) == []
    assert faults(old, other) == ["a: it was integer and is string"]


def test_class_that_contains_itself_is_compared_to_its_end() -> None:
    class Node(BaseModel):
        name: str
        children: list[Node] = []

    Node.model_rebuild()
    assert faults(Node.model_json_schema(), Node.model_json_schema()) == []
