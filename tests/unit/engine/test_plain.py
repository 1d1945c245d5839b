"""Items of plain records, made in C or a column at a time, are those that are made one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from headrace.log.ports import Record, StoredRecord
from headrace.native import speedups
from headrace.registry import Registry

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


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


class Burnt(Event, type="burnt", topic="pages"):
    page: str


@upcast(Glued, version=1)
def glue(data: dict[str, Any]) -> dict[str, Any]:
    return {"page": "old"}


def _decoder(*, takes_envelopes: bool = False, in_c: bool = True) -> BatchDecoder:
    registry = Registry("notebook")
    registry.add_type(Burnt)
    subscription = registry.add_subscription("notes", "earliest")

    @subscription.on(Drawn, Torn, Bound)
    def note(event: Drawn | Torn | Bound) -> None: ...

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


IN_C, BY_COLUMNS = _decoder(), _decoder(in_c=False)
DECODERS = [IN_C, BY_COLUMNS, _decoder(takes_envelopes=True), _decoder(takes_envelopes=True, in_c=False)]

PIECES = [
    b"",
    b" ",
    b'"',
    b"\\",
    b"\\u0041",
    b"\\ud800",
    b"\x00",
    b"\x1f",
    b"\xff",
    "ä".encode(),
    b",",
    b"}",
    b"{",
    b"0",
    b"x",
]
"""What is put into the bytes of an event, in the place of up to two of them."""

TIMES = [
    "2026-11-28T12:00:00Z",
    "2026-11-28T12:00:00.1Z",
    "2026-11-28T12:00:00.123456Z",
    "2026-11-28T12:00:00.1234567Z",
    "2024-02-29T12:00:00Z",
    "2026-02-29T12:00:00Z",
    "2026-02-30T12:00:00Z",
    "2026-13-01T12:00:00Z",
    "2026-11-28T24:00:00Z",
    "2026-11-28T12:60:00Z",
    "2026-11-28T12:00:60Z",
    "2026-11-28T12:00:00",
    "0000-01-01T00:00:00Z",
    "2026-11-28t12:00:00z",
    "2026-11-28 12:00:00Z",
    "2026-11-28T12:00:00+01:00",
    "9999-12-31T23:59:59Z",
    "yesterday",
    "",
    "2026-11-28T12:00:00.Z",
    "2026-11-28T12:00:00,5Z",
    "2026-00-28T12:00:00Z",
    "2026-11-00T12:00:00Z",
]

good = st.fixed_dictionaries({"page": st.sampled_from(["a", "b", "ä", ""])})
data = good | st.sampled_from([{"page": 1}, {"page": "a", "number": "x"}, {}, None])
attributes = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["1", "2", "3", "4", "5", "6"]),
        "type": st.sampled_from(["drawn", "torn", "bound", "glued"]),
    },
    optional={"traceparent": st.just(TRACE)},
)
odd = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["burnt", "strange"]),
        "dataschema": st.sampled_from(["bound/v2", "bound/v3", "glued/v2", "drawn/v1", "https://example.org/drawn"]),
        "partitionkey": st.sampled_from(["p", "x" * 600, "", "ä" * 512, "ä" * 513]),
        "subject": st.just("s"),
        "own": st.just("extension"),
        "id": st.sampled_from(["", "i" * 1_025, '"', "\n", "ä", "i" * 1_024]),
        "source": st.sampled_from(["", "/" * 2_049, "/" * 200, "\\"]),
        "specversion": st.sampled_from(["1.1", "1.0"]),
        "time": st.sampled_from(TIMES),
        "sequence": st.just("7"),
        "correlationid": st.just("c"),
        "causationid": st.just(None),
        "datacontenttype": st.sampled_from(["application/json", "text/plain", "application/cloudevents+json"]),
        "traceparent": st.sampled_from([TRACE, TRACE[:-1] + "0", "", "ä" * 60]),
        "tracestate": st.just("a=b"),
        "data_base64": st.just("e30="),
        "data": st.just({"page": "a" * 600}),
    },
)


@st.composite
def records(draw: st.DrawFn, *, is_odd: bool) -> StoredRecord:
    """Return a record as the platform writes it, or an odd one."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "source": "/s",
        **draw(attributes),
        "data": draw(data if is_odd else good),
    }
    event |= draw(odd) if is_odd else {}
    if draw(st.integers(0, 3)):
        event["data"] = event.pop("data")  # last, as the platform writes it
    headers = [OWN_HEADER]
    if "traceparent" in event or (is_odd and draw(st.booleans())):
        headers.append(("traceparent", TRACE.encode()))
    separators = draw(st.sampled_from([(",", ":"), (",", ":"), (", ", ": ")]))
    text = json.dumps(event, ensure_ascii=draw(st.booleans()), separators=separators)
    value: bytes | None = text.encode()
    if is_odd and value and draw(st.booleans()):
        at, cut = draw(st.integers(0, len(value))), draw(st.integers(0, 2))
        value = value[:at] + draw(st.sampled_from(PIECES)) + value[at + cut :]
    topic = "pages"
    if is_odd:
        value = draw(st.sampled_from([value, value, value, None, b"", b"[]"]))
        headers = draw(st.sampled_from([headers, headers, [], [("content-type", b"text/plain")]]))
        topic = draw(st.sampled_from(["pages", "pages", "lines"]))
    return StoredRecord(topic, 3, 0, 1_000, b"k", value, headers)


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


@settings(max_examples=600)
@given(
    st.lists(st.one_of(plain, plain, plain, strange), max_size=12),
    st.integers(1, 5),
    st.sampled_from(DECODERS),
    st.dictionaries(st.sampled_from([identity("/s", "drawn", "1"), identity("/s", "torn", "2")]), st.just(7 << 32)),
)
def test_items_do_not_depend_on_the_way_they_are_made(
    drawn: list[StoredRecord], chunk: int, decoder: BatchDecoder, seen: dict[bytes, int]
) -> None:
    many = [msgspec.structs.replace(record, offset=number) for number, record in enumerate(drawn)]
    with patch("headrace.engine.columns.CHUNK_RECORDS", chunk):
        items = decoder.decode(many, seen)
    assert shown(items) == shown(one_by_one(decoder, many, seen))


@pytest.mark.parametrize("decoder", [IN_C, BY_COLUMNS])
def test_plain_records_have_no_loop(decoder: BatchDecoder) -> None:
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
        items = decoder.decode(many, {})
    assert len(items) == 500
    assert {item.outcome for item in items} == {Outcome.READY}


@pytest.mark.parametrize("decoder", [IN_C, BY_COLUMNS])
def test_identity_is_known_beyond_its_chunk(decoder: BatchDecoder) -> None:
    """A repeated event in another chunk of a batch is a duplicate, be its chunk plain or not."""
    value = b'{"specversion":"1.0","source":"/s","id":"1","type":"torn","data":{"page":"a"}}'
    twice = [StoredRecord("pages", 3, offset, 1_000, b"k", value, (OWN_HEADER,)) for offset in range(2)]
    with patch("headrace.engine.columns.CHUNK_RECORDS", 1):
        items = decoder.decode(twice, {})
    assert [item.outcome for item in items] == [Outcome.READY, Outcome.DUPLICATE_ID]
