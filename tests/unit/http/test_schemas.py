"""Schemas keep their references inside larger documents, and examples are data that the type accepts."""

from __future__ import annotations

import json
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
from pydantic import BaseModel, Field

from headrace.event import Event, EventType, event, event_type_of
from headrace.http.schemas import add_schema, data_example


class Size(Enum):
    SMALL = "small"


class Item(BaseModel):
    sku: str = Field(min_length=12)
    quantity: int = Field(gt=0, multiple_of=5)


class Placed(Event, type="order/placed v1", topic="orders"):
    order: UUID
    at: datetime
    size: Size
    items: list[Item] = Field(min_length=1)
    note: str | None


class Even(Event, type="even", topic="things"):
    word: str = Field(pattern="^(ab)+$")


@event(type="struct", topic="things")
class Struct(msgspec.Struct):
    item: str
    ratio: float


def declared(model: type[Any]) -> EventType:
    """The model's declaration."""
    event_type = event_type_of(model)
    assert event_type is not None
    return event_type


def test_references_lead_to_components() -> None:
    for model in (Placed, Struct):
        schemas: dict[str, Any] = {}
        root = add_schema(declared(model), schemas)
        references = {root} | {part.split('"')[0] for part in json.dumps(schemas).split('"$ref": "')[1:]}
        assert {reference.removeprefix("#/components/schemas/") for reference in references} == set(schemas)


def test_examples_are_accepted_by_the_type() -> None:
    for model in (Placed, Struct):
        example = data_example(declared(model))
        declared(model).decode(msgspec.json.encode(example))
        assert example


def test_a_type_that_no_example_was_found_for_has_none() -> None:
    assert data_example(declared(Even)) is None
