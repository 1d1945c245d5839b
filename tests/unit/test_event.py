"""Event types: strict JSON, the key's field, abstract bases, and msgspec structs."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from inspect import signature
from typing import Annotated, Any

import msgspec
import pytest
from pydantic import (
    BaseModel,
    Field,
    PlainSerializer,
    PositiveInt,
    RootModel,
    SecretStr,
    ValidationError,
    field_validator,
)

from headrace import Event, event
from headrace.errors import ConfigurationError, SchemaError
from headrace.event import MAX_FAULTS, event_type_of


class Money(BaseModel):
    amount: PositiveInt
    currency: str = "EUR"


class Credited(Event, type="wallet.credited", topic="wallets", key="customer", version=2):
    customer: str
    money: Money
    at: datetime | None = None
    rate: Decimal | None = None


@event(type="wallet.paid", topic="wallets", key="customer")
class Paid(msgspec.Struct):
    customer: str
    amount: Annotated[int, msgspec.Meta(gt=0)]


def test_declaration_is_what_the_class_says() -> None:
    declared = event_type_of(Credited)
    assert declared is not None
    assert (declared.type, declared.topic, declared.key_field, declared.version) == (
        "wallet.credited",
        "wallets",
        "customer",
        2,
    )
    assert declared.model is Credited
    assert event_type_of(Credited(customer="ada", money=Money(amount=1))) is declared
    assert declared.schema()["required"] == ["customer", "money"]


def test_event_comes_back_from_its_json() -> None:
    declared = event_type_of(Credited)
    assert declared is not None
    credited = Credited(
        customer="ada", money=Money(amount=3), at=datetime(2030, 1, 2, tzinfo=UTC), rate=Decimal("1.50")
    )
    assert declared.decode(declared.encode(credited)) == credited


@pytest.mark.parametrize(
    ("data", "location"),
    [
        (b'{"customer": "ada", "money": {"amount": "5"}}', "money.amount"),
        (b'{"customer": "ada", "money": {"amount": 5.5}}', "money.amount"),
        (b'{"customer": "ada", "money": {"amount": true}}', "money.amount"),
        (b'{"customer": "ada", "money": {"amount": 0}}', "money.amount"),
        (b'{"customer": 5, "money": {"amount": 5}}', "customer"),
        (b'{"money": {"amount": 5}}', "customer"),
        (b'{"customer": "ada", "money": {"amount": 5}, "at": 5}', "at"),
        (b'{"customer": "ada", "money": null}', "money"),
        (b"{", ""),
        (b"", ""),
        (b"null", ""),
        (b"[]", ""),
        (b'{"customer": "\xff", "money": {"amount": 5}}', ""),
        (b"[" * 100_000, ""),
    ],
)
def test_data_are_checked_strictly(data: bytes, location: str) -> None:
    declared = event_type_of(Credited)
    assert declared is not None
    with pytest.raises(SchemaError) as refused:
        declared.decode(data)
    assert str(refused.value).startswith("wallet.credited: ")
    assert refused.value.details[0]["location"] == location


def test_all_faults_are_told_up_to_a_limit_and_no_value_is_shown() -> None:
    class Many(Event, type="many", topic="many"):
        numbers: list[int]

    declared = event_type_of(Many)
    assert declared is not None
    with pytest.raises(SchemaError) as refused:
        declared.decode(msgspec.json.encode({"numbers": ["secret"] * 100}))
    assert len(refused.value.details) == MAX_FAULTS
    assert refused.value.details[3]["location"] == "numbers.3"
    assert "secret" not in str(refused.value) + str(refused.value.details)


def test_key_must_be_a_field() -> None:
    with pytest.raises(ConfigurationError) as refused:

        class Wrong(Event, type="wrong", topic="wrongs", key="customer"):
            client: str
            amount: int

    assert str(refused.value) == "Wrong: key='customer' is not one of its fields (client, amount)."


def test_key_may_be_a_field_of_the_base() -> None:
    class Base(Event):
        customer: str

    class Closed(Base, type="wallet.closed", topic="wallets", key="customer"):
        pass

    declared = event_type_of(Closed)
    assert declared is not None
    assert declared.key_field == "customer"
    assert event_type_of(Base) is None


@pytest.mark.parametrize("keywords", [{"type": "thing.done"}, {"topic": "things"}, {"type": "", "topic": "things"}])
def test_type_and_topic_go_together(keywords: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r'Thing needs both a type and a topic: class Thing\(Event, type="'):
        type("Thing", (Event,), {}, **keywords)


@pytest.mark.parametrize("keywords", [{"key": "name"}, {"version": 2}, {"typ": "thing.done", "topic": "things"}])
def test_misplaced_class_keyword_is_refused(keywords: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="Thing"):
        type("Thing", (Event,), {"__annotations__": {"name": str}}, **keywords)


def test_type_checkers_know_the_class_keywords() -> None:
    keywords = signature(Event.__init_subclass__).parameters
    assert {"type", "topic", "key", "version"} <= keywords.keys()


class WithSecret(BaseModel):
    token: SecretStr = SecretStr("")


def test_secret_in_an_event_is_refused_at_its_declaration() -> None:
    """JSON shows a secret as asterisks, so that an emitted event would carry those."""
    with pytest.raises(ConfigurationError, match=r"Leaky: Leaky\.token is a secret, which JSON shows as asterisks"):

        class Leaky(Event, type="leaky", topic="things"):
            token: SecretStr | None = None

    with pytest.raises(ConfigurationError, match=r"Nested: WithSecret\.token is a secret"):

        class Nested(Event, type="nested", topic="things"):
            parts: dict[str, list[WithSecret]] | None = None

    class Telling(Event, type="telling", topic="things"):
        token: Annotated[SecretStr, PlainSerializer(lambda token: token.get_secret_value(), when_used="json")]

    declared = event_type_of(Telling)
    assert declared is not None
    assert declared.encode(Telling(token=SecretStr("abc"))) == b'{"token":"abc"}'


class Point(BaseModel):
    x: float | None = None


class Measured(Event, type="measured", topic="things"):
    low: float | None = None
    points: tuple[Point, ...] = ()


@event(type="struct.measured", topic="things")
class MeasuredStruct(msgspec.Struct):
    low: float | None = None
    points: list[dict[str, float]] = []


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (Measured(low=math.inf), "measured: low is inf or nan"),
        (Measured(points=(Point(x=1), Point(x=math.nan))), r"measured: points\.1\.x is inf or nan"),
        (MeasuredStruct(low=-math.inf), r"struct\.measured: low is inf or nan"),
        (MeasuredStruct(points=[{"x": math.nan}]), r"struct\.measured: points\.0\.x is inf or nan"),
    ],
)
def test_number_that_json_cannot_hold_is_refused_at_emit(value: Any, part: str) -> None:
    declared = event_type_of(value)
    assert declared is not None
    with pytest.raises(SchemaError, match=part):
        declared.encode(value)
    assert b"null" in declared.encode(type(value)(low=None))


def test_declaration_is_not_inherited() -> None:
    class Special(Credited):
        reason: str = "gift"

    assert event_type_of(Special) is None
    assert event_type_of(Special(customer="ada", money=Money(amount=1))) is None
    assert event_type_of(Credited) is not None


def test_aliases_are_what_travels() -> None:
    class Renamed(Event, type="renamed", topic="things", key="customer"):
        customer: str = Field(alias="customerId")

    declared = event_type_of(Renamed)
    assert declared is not None
    decoded = declared.decode(b'{"customerId": "ada"}')
    assert decoded.customer == "ada"
    assert declared.encode(decoded) == b'{"customerId":"ada"}'
    assert "customerId" in declared.schema()["properties"]


def test_enumeration_comes_from_its_value() -> None:
    class Colour(Enum):
        RED = "red"

    class Painted(Event, type="painted", topic="things"):
        colour: Colour

    declared = event_type_of(Painted)
    assert declared is not None
    assert declared.decode(b'{"colour": "red"}').colour is Colour.RED


def test_struct_is_declared_with_the_decorator() -> None:
    declared = event_type_of(Paid)
    assert declared is not None
    assert (declared.type, declared.topic, declared.key_field, declared.version) == (
        "wallet.paid",
        "wallets",
        "customer",
        1,
    )
    paid = Paid(customer="ada", amount=3)
    assert declared.decode(declared.encode(paid)) == paid
    assert event_type_of(paid) is declared
    assert "Paid" in str(declared.schema())
    assert repr(declared) == "EventType('wallet.paid', topic='wallets', model=Paid)"


@pytest.mark.parametrize(
    "data",
    [
        b'{"customer": "ada", "amount": "5"}',
        b'{"customer": "ada", "amount": 0}',
        b'{"amount": 5}',
        b"{",
        b"",
        b"null",
        b"[" * 100_000,
        b'{"customer": "\xff", "amount": 5}',
    ],
)
def test_structs_are_checked_strictly(data: bytes) -> None:
    declared = event_type_of(Paid)
    assert declared is not None
    with pytest.raises(SchemaError, match=r"wallet\.paid: "):
        declared.decode(data)


def test_check_of_a_team_that_breaks_is_the_events_fault() -> None:
    class Fragile(Event, type="fragile", topic="things"):
        name: str

        @field_validator("name")
        @classmethod
        def look_up(cls, name: str) -> str:
            return {"known": name}[name]

    @event(type="brittle", topic="things")
    class Brittle(msgspec.Struct):
        name: str

        def __post_init__(self) -> None:
            raise KeyError(self.name)

    for model, name in ((Fragile, "fragile"), (Brittle, "brittle")):
        declared = event_type_of(model)
        assert declared is not None
        with pytest.raises(SchemaError, match=f"{name}: a check of the event type raised KeyError: 'unknown'"):
            declared.decode(b'{"name": "unknown"}')


@pytest.mark.parametrize("model", [Money, RootModel[int], dict, len])
def test_decorator_takes_only_structs(model: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"@event declares a msgspec\.Struct; .* Subclass headrace\.Event"):
        event(type="thing", topic="things")(model)


def test_key_of_a_struct_must_be_a_field() -> None:
    class Thing(msgspec.Struct):
        name: str

    with pytest.raises(ConfigurationError, match=r"Thing: key='size' is not one of its fields \(name\)\."):
        event(type="thing", topic="things", key="size")(Thing)


def test_subclass_of_a_declared_struct_needs_a_declaration() -> None:
    class Special(Paid):
        pass

    assert event_type_of(Special) is None


@pytest.mark.parametrize("thing", [None, 5, "text", object(), Money, Money(amount=1), list[int], len])
def test_anything_else_has_no_event_type(thing: object) -> None:
    assert event_type_of(thing) is None


def test_pydantics_own_class_keywords_stay_in_force() -> None:
    class Fixed(Event, type="fixed", topic="things", frozen=True):
        name: str

    with pytest.raises(ValidationError):
        Fixed(name="ada").name = "bob"  # type: ignore[misc]
