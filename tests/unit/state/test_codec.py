"""States are Pydantic models or msgspec Structs, go to JSON and back, and start from their defaults."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from headrace.errors import ConfigurationError
from headrace.state.codec import StateType


class Modelled(BaseModel):
    numbers: list[int] = []


class Structured(msgspec.Struct):
    numbers: list[int] = []


class Demanding(BaseModel):
    name: str


@pytest.mark.parametrize("model", [Modelled, Structured])
def test_state_goes_to_json_and_back(model: type[Any]) -> None:
    state = StateType(model)
    assert state.name == model.__name__.lower()
    value = state.create()
    value.numbers.append(1)
    assert state.decode(state.encode(value)) == value
    assert state.create().numbers == [], "a new value shares nothing with an older one"


@pytest.mark.parametrize("model", [Modelled, Structured])
def test_copy_shares_nothing(model: type[Any]) -> None:
    state = StateType(model)
    value = state.create()
    value.numbers.append(1)
    copied = state.copy(value)
    value.numbers.append(2)
    assert copied.numbers == [1]


def test_class_without_defaults_is_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"State\[Demanding\]: Demanding\(\) must work.*every field a default"):
        StateType(Demanding)


def test_plain_class_is_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"State\[dict\]: a state is a pydantic.BaseModel or a msgspec.Struct"):
        StateType(dict)
