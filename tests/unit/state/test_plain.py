"""A glance proves the round trip of plain values, and of nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, create_model, field_validator
from pydantic_core import CoreSchema, core_schema

from headrace.state.codec import StateType
from headrace.state.plain import plain_check


class Plain(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper)

    count: int = 0
    name: str | None = None
    share: float = 0.0
    is_open: bool = False


class PlainStruct(msgspec.Struct):
    count: int = 0
    name: str | None = None


class Positive(BaseModel):
    count: int = Field(0, ge=0)


class PositiveStruct(msgspec.Struct):
    count: Annotated[int, msgspec.Meta(ge=0)] = 0


class Chosen(BaseModel):
    kind: Literal["a", "b"] = "a"


class Listed(BaseModel):
    numbers: list[int] = []


class Shortened(BaseModel):
    model_config = ConfigDict(str_max_length=3)

    name: str = ""


class Checked(BaseModel):
    count: int = 0

    @field_validator("count")
    @classmethod
    def check(cls, count: int) -> int:
        return count


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    count: int = 0


class Omitted(BaseModel):
    count: int = Field(0, exclude_if=lambda count: count > 100)


class Finished(BaseModel):
    count: int = 0

    def model_post_init(self, context: Any) -> None:
        self.count = 0


class Initialised(BaseModel):
    count: int = 0

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        self.count = 0


class OwnSchema(BaseModel):
    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls.reset, handler(source))

    @staticmethod
    def reset(value: Any) -> Any:
        value.count = 0
        return value


class InheritsSchema(OwnSchema):
    count: int = 0


@pytest.mark.parametrize("value", [Plain(), Plain(COUNT=2**62, NAME="ü", SHARE=0.5, IS_OPEN=True), PlainStruct(7, "x")])
def test_plain_values_are_proved_by_a_glance(value: Any) -> None:
    check = plain_check(type(value))
    assert check is not None and check(value)
    state = StateType(type(value))
    assert state.decode(state.encode(value)) == value


@pytest.mark.parametrize(
    ("field", "odd"),
    [
        ("count", 2.5),
        ("count", True),
        ("count", "1"),
        ("count", 2**63),
        ("count", -(2**63) - 1),
        ("name", 3),
        ("share", float("inf")),
        ("share", 1),
        ("is_open", 1),
    ],
)
def test_other_values_are_read_back(field: str, odd: object) -> None:
    value = Plain()
    object.__setattr__(value, field, odd)
    check = plain_check(Plain)
    assert check is not None and not check(value)


@pytest.mark.parametrize("model", [Positive, PositiveStruct, Chosen, Listed, Shortened, Checked, Open])
def test_classes_that_are_not_plain_have_no_glance(model: type[Any]) -> None:
    assert plain_check(model) is None


@pytest.mark.parametrize("model", [Omitted, Finished, Initialised, InheritsSchema])
def test_a_class_that_alters_what_it_reads_has_no_glance(model: type[Any]) -> None:
    assert plain_check(model) is None
    value = model()
    value.count = 101
    with pytest.raises(ValueError, match="would not come back"):
        StateType(model).encode(value)


def test_an_integer_too_long_to_be_read_is_refused() -> None:
    """Pydantic writes an integer of any length, and reads 4,300 digits."""
    value = Plain()
    value.count = 10**4_301
    with pytest.raises(ValueError, match="would not come back"):
        StateType(Plain).encode(value)


def test_a_field_named_like_a_keyword_has_no_glance() -> None:
    fields: dict[str, Any] = {"class": (int, 0)}
    model = create_model("Named", **fields)
    assert plain_check(model) is None
    assert StateType(model).encode(model()) == b'{"class":0}'


def test_value_against_a_plain_field_is_refused_all_the_same() -> None:
    value = Plain()
    object.__setattr__(value, "count", 2.5)
    with pytest.raises(ValueError, match="would not come back"):
        StateType(Plain).encode(value)
