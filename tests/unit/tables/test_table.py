"""The fields of a class become columns, and a wrong declaration says what to write."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, Field

from headrace import Emit, Event, Headrace, State, Table, Transaction
from headrace.errors import ConfigurationError
from headrace.tables.columns import Column
from headrace.tables.table import TableType


class Colour(Enum):
    RED = "red"


class Part(BaseModel):
    name: str


class Wide(BaseModel):
    text: str
    number: int
    ratio: float | None
    price: Annotated[Decimal, Field(ge=0)]
    is_on: bool
    at: datetime
    day: date
    took: timedelta
    id: UUID
    raw: bytes
    colour: Colour
    status: Literal["a", "b"] | None = None
    parts: list[Part] = []
    anything: Any = None


class Made(Event, type="made", topic="things", key="name"):
    name: str


class Thing(BaseModel):
    name: str
    sort: str = ""


def test_fields_become_columns() -> None:
    table = TableType(Wide, "wide", "text", [("number", "day")], "test")
    assert {name: (each.type, each.is_nullable) for name, each in table.columns.items()} == {
        "text": ("text", False),
        "number": ("bigint", False),
        "ratio": ("double precision", True),
        "price": ("numeric", False),
        "is_on": ("boolean", False),
        "at": ("timestamptz", False),
        "day": ("date", False),
        "took": ("interval", False),
        "id": ("uuid", False),
        "raw": ("bytea", False),
        "colour": ("text", False),
        "status": ("text", True),
        "parts": ("jsonb", False),
        "anything": ("jsonb", True),
    }
    assert table.create("wide_2").startswith('create table projections.wide_2 ("text" text not null, "number"')
    assert table.create_indexes("wide") == [
        'create index if not exists "wide_number_day_idx" on projections.wide ("number", "day")'
    ]
    row = Wide(
        text="a", number=1, ratio=None, price=Decimal("1.5"), is_on=True, at=datetime.now(UTC), day=date(2026, 1, 2),
        took=timedelta(1), id=uuid4(), raw=b"a", colour=Colour.RED, parts=[Part(name="p")],
    )  # fmt: skip
    stored = {name: column.dump(getattr(row, name)) for name, column in table.columns.items()}
    assert (stored["colour"], stored["parts"], stored["anything"]) == ("red", '[{"name":"p"}]', None)
    assert Wide.model_validate(table.row_of(stored)) == row


def test_a_dataclass_is_a_row() -> None:
    @dataclass
    class Plain:
        name: str
        tags: list[str] = field(default_factory=list)

    table = TableType(Plain, "plain", "name", [], "test")
    assert [(each.name, each.type) for each in table.columns.values()] == [("name", "text"), ("tags", "jsonb")]


def test_wrong_declarations_say_what_to_write() -> None:
    events = Headrace("shop")
    with pytest.raises(ConfigurationError, match="a row is a Pydantic model or a dataclass, not <class 'int'>"):
        events.projection("things", int, key="name")
    with pytest.raises(ConfigurationError, match="'colour' is no field of Thing"):
        events.projection("things", Thing, key="colour")
    with pytest.raises(ConfigurationError, match="the key 'parts' has to be one value"):
        events.projection("things", Wide, key="parts")
    with pytest.raises(ConfigurationError, match=r"the table '9lives' .* give it another name with table="):
        events.projection("things", Thing, key="name", table="9lives")

    class Camel(BaseModel):
        theName: str  # noqa: N815 - that is the mistake

    with pytest.raises(ConfigurationError, match="the field 'theName' cannot be a column"):
        events.projection("things", Camel, key="theName")
    things = events.projection("things", Thing, key="name")
    with pytest.raises(ConfigurationError, match="'sort' is also a parameter of its routes; rename it"):
        things.router()
    with pytest.raises(ConfigurationError, match="have the same table, 'things'; give one another name with table="):
        events.projection("other", Thing, key="name", table="things")
    with pytest.raises(ConfigurationError, match="the subscription 'things' is declared twice"):
        events.projection("things", Thing, key="name", table="others")


def test_handlers_of_a_projection_only_write_rows() -> None:
    events = Headrace("shop")
    things = events.projection("things", Thing, key="name")

    with pytest.raises(ConfigurationError, match="it emits; a projection only writes rows"):

        @things.on(Made)
        def emitting(event: Made, rows: Table[Thing], emit: Emit) -> None:
            pass

    with pytest.raises(ConfigurationError, match="it asks for a State"):

        @Headrace("a").projection("things", Thing, key="name").on(Made)
        def keeping(event: Made, rows: Table[Thing], state: State[Wallet]) -> None:
            pass

    with pytest.raises(ConfigurationError, match="it is async"):

        @Headrace("a").projection("things", Thing, key="name").on(Made)
        async def waiting(event: Made, rows: Table[Thing], tx: Transaction) -> None:
            pass

    with pytest.raises(ConfigurationError, match=r"Table\[Thing\] is for the handlers of a projection of Thing"):

        @events.subscription("others").on(Made)
        def elsewhere(event: Made, rows: Table[Thing]) -> None:
            pass


class Wallet(BaseModel):
    balance: int = 0


def test_a_time_without_a_zone_is_in_utc() -> None:
    """Wherever the process runs, since rows and queries have to mean the same."""
    column = Column("at", datetime | None)
    naive = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - that is what a query may give
    assert column.dump(naive) == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert column.dump(datetime(2026, 3, 1, 12, tzinfo=UTC)) == datetime(2026, 3, 1, 12, tzinfo=UTC)
