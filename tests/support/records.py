"""Records to be drawn by hypothesis: as the platform writes them, and whatever else a topic may hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from headrace.cloudevents.record import OWN_HEADER
from headrace.log.ports import Record, StoredRecord
from headrace.native import speedups
from tests.support.in_c import LACKS_C

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

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
    b"\n",
    b"\t",
    b"\\ud83d\\ude00",
    b"\\n",
    b"\x7f",
    b"\x80",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b'"data":1,',
    b'"id":"2",',
    b"null",
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

good = st.fixed_dictionaries({"page": st.sampled_from(["a", "b", "ä", "", "red", "\U0001f600"])})
VALUES = [
    *("1", "-0", "-0.0", "1e5", "1E+5", "0e0", "1e400", "12345678901234567890123456789", "01", "1.", "-", "nul"),
    *("NaN", "-Infinity", "null", "true", "[]", "{}", '[1,[2,{"x":[]}]]', '["a",]', '{"a":1,"a":2}', '"\\u0041"'),
    *(
        '"\\ud83d\\ude00"',
        '"\\ud800"',
        '"\\udc00"',
        '"\\u00zz"',
        '"\\/"',
        '"\\v"',
        '"\x7f"',
        '"\u2028"',
        f'"{"ä" * 512}"',
    ),
    *(f'"{"ä" * 513}"', f'"{"x" * 513}"', "[" * 60 + "]" * 60, "[" * 70 + "]" * 70, "[" * 2_000 + "]" * 2_000),
]
"""What a field of the data may be, as bytes of JSON or nearly."""
data = good | st.sampled_from([{"page": 1}, {"page": "a", "number": "x"}, {}, None])
attributes = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["1", "2", "3", "4", "5", "6"]),
        "type": st.sampled_from(["drawn", "torn", "bound", "glued", "inked", "dyed", "framed", "loose"]),
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


OFFSETS = [0, 0, 2**31 - 6, 2**31, 2**40, 2**62]
TRACE_HEADERS = st.tuples(
    st.sampled_from(["traceparent", "tracestate", "own"]),
    st.sampled_from([TRACE.encode(), f"{TRACE[:-1]}0".encode(), b"", b"\xff", None]),
)
"""Two of one name, one that differs from the envelope's, and others."""


@st.composite
def edited(draw: st.DrawFn, value: bytes) -> bytes:
    """Return the bytes of an event as another producer might write it, or a broken one."""
    at = draw(st.integers(0, max(len(value) - 1, 0)))
    how = draw(st.sampled_from(["space", "drop", "escape", "swap", "cut", "behind", "byte"]))
    if how == "space":
        return value[:at] + draw(st.sampled_from([b" ", b"\n", b"\t", b"\r", b"\x0b"])) + value[at:]
    if how == "drop":
        return value[:at] + value[at + 1 :]
    if how == "escape":
        return value[:at] + b"\\u%04x" % value[at] + value[at + 1 :]
    if how == "cut":
        return value[:at]
    if how == "behind":
        return value + draw(st.sampled_from([b" ", b"\n", b"}", b"\x00", b"{}"]))
    if how == "byte":
        return value[:at] + bytes([draw(st.integers(0, 255))]) + value[at + 1 :]
    try:
        members = list(msgspec.json.decode(value, type=dict[str, msgspec.Raw]).items())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return value
    members = draw(st.permutations(members))
    if draw(st.booleans()):
        members.insert(0, draw(st.sampled_from(members)))
    return b"{" + b",".join(b"%b:%b" % (msgspec.json.encode(name), bytes(raw)) for name, raw in members) + b"}"


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
    headers: list[tuple[str, bytes | None]] = [OWN_HEADER]
    if "traceparent" in event or (is_odd and draw(st.booleans())):
        headers.append(("traceparent", TRACE.encode()))
    separators = draw(st.sampled_from([(",", ":"), (",", ":"), (", ", ": ")]))
    text = json.dumps(event, ensure_ascii=draw(st.booleans()), separators=separators)
    if not draw(st.integers(0, 3)):
        text = text.replace('"data":{', f'"data":{{"other":{draw(st.sampled_from(VALUES))},', 1)
    if not draw(st.integers(0, 5)):
        text = text.replace('"page":', f'"page":{draw(st.sampled_from(VALUES))},"last":', 1)
    written = text.encode(errors="surrogatepass")
    value: bytes | None = draw(edited(written)) if is_odd and not draw(st.integers(0, 3)) else written
    if is_odd and value and draw(st.booleans()):
        at, cut = draw(st.integers(0, len(value))), draw(st.integers(0, 2))
        value = value[:at] + draw(st.sampled_from(PIECES)) + value[at + cut :]
    if is_odd and not draw(st.integers(0, 3)):
        headers = [*headers, *draw(st.lists(TRACE_HEADERS, max_size=3))]
    topic = "pages"
    if is_odd:
        value = draw(st.sampled_from([value, value, value, None, b"", b"[]"]))
        headers = draw(st.sampled_from([headers, headers, [], [("content-type", b"text/plain")]]))
        topic = draw(st.sampled_from(["pages", "pages", "lines"]))
    return StoredRecord(topic, 3, draw(st.sampled_from(OFFSETS)), 1_000, b"k", value, headers)


def as_read_in_c(many: Sequence[StoredRecord]) -> Sequence[Record]:
    """Return the records as they come out of a Kafka batch, which is one of their topic."""
    if LACKS_C or len({record.topic for record in many}) != 1:
        return many
    batch = b"".join(_sized(_record_bytes(record)) for record in many)
    assert speedups is not None
    read: list[Record] = speedups.read_records(batch, 0, len(many), many[0].topic, 3, 0, 1_000, -1, 0)
    assert [record.value for record in read] == [record.value for record in many]
    return read


def _record_bytes(record: StoredRecord) -> bytes:
    headers = [_sized(name.encode()) + _sized(content) for name, content in record.headers]
    parts = _sized(record.key) + _sized(record.value) + _varint(len(headers)) + b"".join(headers)
    return bytes(2) + _varint(record.offset) + parts


def _sized(content: bytes | None) -> bytes:
    return _varint(-1) if content is None else _varint(len(content)) + content


def _varint(number: int) -> bytes:
    left, found = number << 1 ^ number >> 63, bytearray()
    while left >= 0x80:
        found.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes(found) + bytes([left])
