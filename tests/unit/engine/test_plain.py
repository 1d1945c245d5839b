"""Items of plain records, made in C or a column at a time, are those that are made one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.cloudevents.record import OWN_HEADER
from headrace.engine.columns import Columns
from headrace.engine.decode import BatchDecoder
from headrace.envelope import Envelope, identity
from headrace.errors import SchemaNotFetchedError
from headrace.event import Event, event, upcast
from headrace.item import Item, Outcome
from headrace.ledger.packed_marks import PackedMarks
from headrace.log.ports import Record, StoredRecord
from headrace.native import speedups
from headrace.registry import Registry
from tests.support.in_c import IN_C as HAS_C
from tests.support.in_c import IN_PYTHON, LACKS_C
from tests.support.records import as_read_in_c, records
from tests.support.single_changes import changes


class Drawn(Event, type="drawn", topic="pages", key="page"):
    page: str
    number: int = 0


@event(type="torn", topic="pages")
class Torn(msgspec.Struct):
    page: str


@event(type="bound", topic="pages", key="page", version=2)
class Bound(msgspec.Struct):
    page: str


@event(type="glued", topic="pages", version=2)
class Glued(msgspec.Struct):
    page: str


class Colour(StrEnum):
    RED = "red"
    NONE = ""


class Shown(str):
    """Text whose text is another."""

    def __str__(self) -> str:
        return f"<{self[:]}>"


@event(type="inked", topic="pages", key="page")
class Inked(msgspec.Struct):
    """Its key is of whatever type it comes as."""

    page: int | float | bool | str | list[Any] | dict[str, Any] | None = None


@event(type="dyed", topic="pages", key="page")
class Dyed(msgspec.Struct):
    page: Colour


@event(type="framed", topic="pages", key="page")
class Framed(msgspec.Struct):
    page: str

    def __post_init__(self) -> None:
        self.page = Shown(self.page)


class Loose(Event, type="loose", topic="pages", key="page"):
    """Pydantic's decoder takes NaN, and JSON does not."""

    page: Any = None


class Burnt(Event, type="burnt", topic="pages"):
    page: str


@upcast(Glued, version=1)
def glue(data: dict[str, Any]) -> dict[str, Any]:
    return {"page": "old"}


def _decoder(*, takes_envelopes: bool = False, in_c: bool = True) -> BatchDecoder:
    registry = Registry("notebook")
    registry.add_type(Burnt)
    subscription = registry.add_subscription("notes", "earliest")

    @subscription.on(Drawn, Torn, Bound, Inked, Dyed, Framed, Loose)
    def note(event: Drawn | Torn | Bound | Inked | Dyed | Framed | Loose) -> None: ...

    if takes_envelopes:

        @subscription.on(Glued)
        def keep(event: Glued, envelope: Envelope) -> None: ...
    else:

        @subscription.on(Glued)
        def forget(event: Glued) -> None: ...

    registry.complete()
    registry.decoders["lines"] = lambda line: Drawn(page="line") if line.value else None
    with patch("headrace.engine.plain.speedups", speedups if in_c else None):
        decoder = BatchDecoder(registry.subscriptions["notes"], registry.types, registry.decoders)
    assert isinstance(decoder._plain, Columns) is not in_c
    return decoder


WAYS = [False] if LACKS_C else [True, False]
DECODERS = [_decoder(takes_envelopes=takes, in_c=in_c) for takes in (False, True) for in_c in WAYS]

plain, strange = records(is_odd=False), records(is_odd=True)


def shown(items: Sequence[Item]) -> list[tuple[object, ...]]:
    """Return what there is to an item, with its error as text."""
    fields = [name for name in Item.__struct_fields__ if name not in ("record", "error", "known_envelope")]
    return [
        (id(item.record), repr(item.error), item.envelope, *(getattr(item, name) for name in fields)) for item in items
    ]


def one_by_one(decoder: BatchDecoder, many: Sequence[Record], seen: Mapping[bytes, int]) -> list[Item]:
    lacking: list[SchemaNotFetchedError] = []
    return decoder._one_by_one(many, seen, {}, lacking)


IDS = [identity("/s", "drawn", "1"), identity("/s", "torn", "2")]


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.one_of(plain, plain, plain, strange), max_size=12),
    st.integers(1, 5),
    st.sampled_from(DECODERS),
    st.dictionaries(st.sampled_from(IDS), st.sampled_from([7 << 32, -1])),
    st.booleans(),
    st.booleans(),
)
def test_items_do_not_depend_on_the_way_they_are_made(
    drawn: list[StoredRecord],
    chunk: int,
    decoder: BatchDecoder,
    seen: dict[bytes, int],
    is_packed: bool,
    is_read_in_c: bool,
) -> None:
    stored = [msgspec.structs.replace(each, offset=each.offset + number) for number, each in enumerate(drawn)]
    many = as_read_in_c(stored) if is_read_in_c else stored
    marks: Mapping[bytes, int] = seen
    if is_packed:
        marks = packed = PackedMarks(100)
        for known, mark in seen.items():
            packed.add([known], [mark], 0.0)
    with patch("headrace.engine.columns.CHUNK_RECORDS", chunk):
        items = decoder.decode(many, marks)
    assert shown(items) == shown(one_by_one(decoder, many, marks))


@pytest.mark.parametrize("in_c", [HAS_C, IN_PYTHON])
def test_each_single_change_ends_as_one_by_one(in_c: bool) -> None:
    decoder, made = _decoder(in_c=in_c), Counter[bool]()
    for record in changes():
        many = as_read_in_c([record]) if in_c else [record]
        found = decoder.decode(many, {})
        assert shown(found) == shown(one_by_one(decoder, many, {})), record
        plain_items = decoder._plain.items([record], 0, {}, {})
        assert shown(plain_items) == shown(one_by_one(decoder, [record], {}))[: len(plain_items)], record
        made[bool(plain_items)] += 1
    assert min(made[True], made[False]) > 500


@pytest.mark.parametrize("in_c", [HAS_C, IN_PYTHON])
def test_plain_records_have_no_loop(in_c: bool) -> None:
    """Of several types and versions; so that the comparison above compares two ways."""
    kinds: list[dict[str, object]] = [
        {"type": "drawn"},
        {"type": "torn"},
        {"type": "bound"},
        {"type": "bound", "dataschema": "bound/v2"},
        {"type": "glued", "dataschema": "glued/v2"},
    ]
    many: list[Record] = []
    for number, kind in enumerate(kinds * 100):
        event = {"specversion": "1.0", "source": "/s", "id": str(number), **kind, "data": {"page": "a"}}
        many.append(StoredRecord("pages", 3, number, 1_000, b"k", msgspec.json.encode(event), (OWN_HEADER,)))
    with patch.object(BatchDecoder, "_one_by_one", side_effect=AssertionError):
        items = _decoder(in_c=in_c).decode(many, {})
    assert len(items) == 500
    assert {item.outcome for item in items} == {Outcome.READY}


@pytest.mark.parametrize("in_c", [HAS_C, IN_PYTHON])
def test_identity_is_known_beyond_its_chunk(in_c: bool) -> None:
    """A repeated event in another chunk of a batch is a duplicate, be its chunk plain or not."""
    value = b'{"specversion":"1.0","source":"/s","id":"1","type":"torn","data":{"page":"a"}}'
    twice = [StoredRecord("pages", 3, offset, 1_000, b"k", value, (OWN_HEADER,)) for offset in range(2)]
    with patch("headrace.engine.columns.CHUNK_RECORDS", 1):
        items = _decoder(in_c=in_c).decode(twice, {})
    assert [item.outcome for item in items] == [Outcome.READY, Outcome.DUPLICATE_ID]
