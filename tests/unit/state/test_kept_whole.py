"""A state comes back from Postgres as the handler left it, or is refused in a sentence: nothing is lost in silence."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Annotated, Any

import msgspec
import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    Secret,
    SecretStr,
    computed_field,
    field_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel

from headrace.errors import ConfigurationError
from headrace.state.codec import StateType


def cold(state: StateType, value: Any) -> Any:
    """Return the value as an owner reads it that has never seen it."""
    return state.load(state.encode(value))[0]


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, serialize_by_alias=True)
    total_cents: int = 0
    payment_count: int = 0


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    unit_price: int = Field(0, alias="unitPrice")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return self.unit_price * 2


class Aliased(BaseModel):
    seen: int = Field(0, alias="seenTimes")
    read_as: int = Field(0, validation_alias=AliasChoices("a", "b"))
    written_as: int = Field(0, serialization_alias="w")
    inner: Inner = Inner()
    inners: list[Inner] = []


class Computing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    once: int = 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return self.once * 2

    @cached_property
    def thrice(self) -> int:
        return self.once * 3


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    known: int = 0


def test_aliases_do_not_matter_to_a_state() -> None:
    camel = Camel()
    camel.total_cents, camel.payment_count = 300, 3
    assert StateType(Camel).encode(camel) == b'{"total_cents":300,"payment_count":3}'
    assert cold(StateType(Camel), camel) == camel
    aliased = Aliased()
    aliased.seen, aliased.read_as, aliased.written_as, aliased.inner.unit_price = 1, 2, 3, 4
    aliased.inners.append(Inner(unitPrice=5))
    assert cold(StateType(Aliased), aliased) == aliased


def test_computed_fields_are_not_stored() -> None:
    value = Computing(once=3)
    assert value.thrice == 9
    assert StateType(Computing).encode(value) == b'{"once":3}'
    assert cold(StateType(Computing), value).twice == 6


def test_members_of_an_open_model_are_kept() -> None:
    value = Open(known=1, other=[2])
    assert cold(StateType(Open), value) == value


class Colour(Enum):
    RED = "red"


class Rich(BaseModel):
    at: datetime | None = None
    took: timedelta = timedelta()
    price: Decimal = Decimal("1.50")
    colour: Colour = Colour.RED
    by_number: dict[int, tuple[int, str]] = {}
    names: set[str] = set()
    raw: bytes = b"abc"


class RichStruct(msgspec.Struct, rename="camel"):
    happened_at: datetime | None = None
    by_number: dict[int, tuple[int, str]] = {}
    names: set[str] = set()


class Tags(RootModel[list[str]]):
    root: list[str] = []


def test_rich_values_come_back() -> None:
    now = datetime(2031, 5, 6, tzinfo=UTC)
    rich = Rich(at=now, took=timedelta(hours=1), by_number={1: (2, "b")}, names={"a", "b", "c"})
    assert cold(StateType(Rich), rich) == rich
    struct = RichStruct(happened_at=now, by_number={1: (2, "b")}, names={"a", "b", "c"})
    assert cold(StateType(RichStruct), struct) == struct
    assert cold(StateType(Tags), Tags(["a"])) == Tags(["a"])


class Excluded(BaseModel):
    token: str = Field("", exclude=True)


class Private(BaseModel):
    _seen: int = PrivateAttr(0)


class WithSecret(BaseModel):
    token: SecretStr = SecretStr("")


class WithSecrets(BaseModel):
    tokens: dict[str, Annotated[Secret[int] | None, Field()]] = {}


class Holder(BaseModel):
    parts: list[Excluded | None] = []


class PrivateHolder(BaseModel):
    parts: dict[str, Private] = {}


class SecretHolder(BaseModel):
    parts: list[WithSecret] = []


class Lowest(BaseModel):
    low: float = math.inf


class LowestStruct(msgspec.Struct):
    low: float = math.inf


class Hidden(BaseModel):
    number: int = Field(0, exclude_if=lambda number: number == 0)


class Omitting(msgspec.Struct, omit_defaults=True):
    number: int = 0


class Uncomparable(msgspec.Struct, eq=False):
    number: int = 0


class Latest(BaseModel):
    numbers: dict[str, deque[int]] = {"all": deque(maxlen=3)}


class WrongDefault(BaseModel):
    number: int = "many"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (Excluded, "Excluded.token has exclude=True, so it is not stored; remove exclude=True"),
        (Holder, "Excluded.token has exclude=True, so it is not stored"),
        (Private, "the private attribute Private._seen is not stored; make it a field"),
        (PrivateHolder, "the private attribute Private._seen is not stored"),
        (WithSecret, "WithSecret.token is a secret, which JSON shows as asterisks; write str"),
        (WithSecrets, "WithSecrets.tokens is a secret"),
        (SecretHolder, "WithSecret.token is a secret"),
        (Lowest, "low is inf or nan, which JSON cannot hold; use None"),
        (LowestStruct, "low is inf or nan, which JSON cannot hold; use None"),
        (Hidden, "the field 'number' of Hidden() is not stored; remove exclude"),
        (Omitting, "the field 'number' of Omitting() is not stored; remove exclude, exclude_if or omit_defaults"),
        (Uncomparable, "let the class compare by value (no eq=False)"),
        (Latest, "the deque 'numbers.all' comes back without its maxlen; keep a list"),
        (WrongDefault, "number: Input should be a valid integer"),
    ],
)
def test_class_that_cannot_be_kept_is_refused(model: type[Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        StateType(model)
    assert str(refused.value).startswith(f"State[{model.__name__}]: ")
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_secret_with_a_serializer_is_kept() -> None:
    class Telling(BaseModel):
        token: SecretStr = SecretStr("")

        @field_serializer("token", when_used="json")
        def tell(self, token: SecretStr) -> str:
            return token.get_secret_value()

    value = Telling(token=SecretStr("abc"))
    assert cold(StateType(Telling), value) == value


class Line(BaseModel):
    sku: str = ""


class Special(Line):
    reason: str = ""


class LineStruct(msgspec.Struct):
    sku: str = ""


class SpecialStruct(LineStruct):
    reason: str = ""


@dataclass
class Place:
    name: str = ""


class Basket(BaseModel):
    number: int = Field(0, ge=0)
    low: float | None = None
    lines: list[Line] = []
    colour: Colour = Colour.RED
    place: Place = Place()
    anything: Any = None


class BasketStruct(msgspec.Struct):
    number: int = 0
    low: float | None = None
    lines: list[LineStruct] = []
    anything: Any = None
    packed: msgspec.Raw = msgspec.Raw(b"null")


@pytest.mark.parametrize(
    ("model", "field", "wrong", "sentence"),
    [
        (Basket, "number", 2.5, "number: Input should be a valid integer"),
        (Basket, "number", -5, "number: Input should be greater than or equal to 0"),
        (Basket, "number", "5", "number is a str and comes back as a int"),
        (Basket, "number", None, "number: Input should be a valid integer"),
        (Basket, "low", math.inf, "low is inf or nan, which JSON cannot hold"),
        (Basket, "low", math.nan, "low is inf or nan, which JSON cannot hold"),
        (Basket, "lines", [Line(), Special()], "lines.1 is a Special and comes back as a Line"),
        (Basket, "colour", "red", "colour is a str and comes back as a Colour"),
        (Basket, "place", {"name": "x"}, "place is a dict and comes back as a Place"),
        (Basket, "anything", object, "Unable to serialize"),
        (Basket, "anything", Place("x"), "anything is a Place and comes back as a dict"),
        (Basket, "anything", [math.inf], "anything.0 is inf or nan"),
        (BasketStruct, "number", 2.5, "Expected `int`, got `float`"),
        (BasketStruct, "number", "5", "Expected `int`, got `str`"),
        (BasketStruct, "low", math.inf, "low is inf or nan, which JSON cannot hold"),
        (BasketStruct, "low", math.nan, "low is inf or nan, which JSON cannot hold"),
        (BasketStruct, "lines", [LineStruct(), SpecialStruct()], "lines.1 is a SpecialStruct and comes back as a Line"),
        (BasketStruct, "anything", {1, 2}, "anything is a set and comes back as a list"),
        (BasketStruct, "packed", msgspec.Raw(b'"\xff"'), "'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_value_that_would_not_come_back_is_refused(model: type[Any], field: str, wrong: Any, sentence: str) -> None:
    state = StateType(model)
    value = state.create()
    setattr(value, field, wrong)
    with pytest.raises(Exception) as refused:  # noqa: PT011 - whatever it is, the event fails
        state.encode(value)
    assert sentence in str(refused.value)


class Renamed(BaseModel):
    new: int = 0
    inner: Line = Line()


class RenamedStruct(msgspec.Struct):
    new: int = 0
    lines: set[str] = set()
    inners: list[LineStruct] = []


@pytest.mark.parametrize(
    ("model", "stored", "member"),
    [
        (Renamed, b'{"old": 300}', "'old'"),
        (Renamed, b'{"new": 1, "inner": {"sku": "a", "name": "b"}}', "'inner.name'"),
        (RenamedStruct, b'{"old": 300}', "'old'"),
        (RenamedStruct, b'{"new": 1, "inners": [{"sku": "a"}, {"name": "b"}]}', "'inners.*.name'"),
    ],
)
def test_stored_member_without_a_field_is_not_dropped(model: type[Any], stored: bytes, member: str) -> None:
    with pytest.raises(ValueError, match=f"no field for the stored member {member}".replace("*", r"\*")):
        StateType(model).load(stored)


def test_field_that_is_new_starts_from_its_default() -> None:
    assert StateType(Renamed).load(b'{"new": 4}')[0] == Renamed(new=4)
    assert StateType(RenamedStruct).load(b'{"new": 4}')[0] == RenamedStruct(new=4)


def test_stored_member_may_be_renamed_or_dropped_on_purpose() -> None:
    class Moved(BaseModel):
        new: int = 0

        @model_validator(mode="before")
        @classmethod
        def rename(cls, stored: Any) -> Any:
            if isinstance(stored, dict) and "old" in stored:
                stored["new"] = stored.pop("old")
            return stored

    class Dropping(BaseModel):
        model_config = ConfigDict(extra="ignore")
        new: int = 0

    assert StateType(Moved).load(b'{"old": 300}')[0] == Moved(new=300)
    assert StateType(Dropping).load(b'{"old": 300, "new": 1}')[0] == Dropping(new=1)


def test_stored_json_of_another_type_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="the stored JSON does not fit Renamed: new: Input should be a valid integer"):
        StateType(Renamed).load(b'{"new": "many"}')
