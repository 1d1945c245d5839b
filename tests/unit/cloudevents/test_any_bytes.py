"""Bytes of any kind, as a request's body and as a record: one verdict for both, and never anything but a refusal."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from headrace.cloudevents import decode_record, parse_request
from headrace.cloudevents.record import names_cloudevents
from headrace.envelope import Envelope
from headrace.errors import DecodeError
from headrace.log.ports import NewRecord

STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"
EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "noted", "data": {"page": "a", "number": 1}}
NAMES = [*EVENT, "subject", "time", "partitionkey", "datacontenttype", "data_base64", "sequence", "traceparent", "own"]
TEXTS = [
    "",
    "1.0",
    "0.3",
    "2025-01-01T00:00:00Z",
    "2025-13-01",
    "YQ==",
    "application/json",
    "\x00",
    "\ud800",
    "x" * 5_000,
]
OTHERS: list[object] = [None, True, 1, 1.5, 10**400, [], {}, {"page": "a"}]
VALUES = st.sampled_from([*TEXTS, *OTHERS])
ASCII = st.binary(max_size=8).filter(lambda value: value.isascii() and b"%" not in value and value == value.strip())
"""Other bytes are written in another way in the headers of HTTP, which end where their text ends."""


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """An event with some attributes replaced, left out or doubled, and then a few bytes changed; or just bytes."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=60))
    members = [*EVENT.items(), *draw(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=3))]
    kept = [member for member in members if draw(st.integers(0, 7))]
    text = "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in kept) + "}"
    body = bytearray(text.encode())
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, 255)), max_size=2)):
        body[at] = byte
    return bytes(body)


def over_http(content_type: str | None, headers: list[tuple[bytes, bytes]], body: bytes) -> object:
    """Return what a request comes to: envelope and data, or None if it is refused."""
    try:
        (result,) = parse_request(content_type, headers, body)
    except DecodeError:
        return None
    return None if isinstance(result, DecodeError) else (result.envelope, result.data)


def from_the_log(headers: list[tuple[str, bytes]], value: bytes) -> tuple[Envelope, bytes] | None:
    """Return what a record comes to, or None if it becomes a dead letter."""
    try:
        return decode_record(NewRecord("notes", b"a", value, headers), extensions=True)
    except DecodeError:
        return None


@given(bodies())
def test_structured_bytes_have_one_verdict(body: bytes) -> None:
    taken = from_the_log([("content-type", STRUCTURED.encode())], body)
    if taken is not None and names_cloudevents(taken[0].datacontenttype or ""):
        taken = None  # over HTTP such an event is refused, since no record in binary mode could carry it
    assert over_http(STRUCTURED, [], body) == taken


@given(bodies(), st.dictionaries(st.sampled_from(NAMES), ASCII, max_size=4))
def test_binary_bytes_have_one_verdict(body: bytes, more: dict[str, bytes]) -> None:
    named = {"specversion": b"1.0", "id": b"1", "source": b"/s", "type": b"noted"} | more
    named.pop("datacontenttype", None)  # over HTTP it is the content type
    fields = [(f"ce-{name}".encode(), value) for name, value in named.items()]
    headers = [("content-type", b"application/json"), *((f"ce_{name}", value) for name, value in named.items())]
    assert over_http("application/json", fields, body) == from_the_log(headers, body)


@given(st.lists(bodies(), max_size=3))
def test_batch_has_the_verdicts_of_its_events(entries: list[bytes]) -> None:
    """If the whole is JSON at all: a batch whose JSON is broken is refused as a whole."""
    body = b"[" + b",".join(entries) + b"]"
    try:
        results = parse_request(BATCHED, [], body)
    except DecodeError:
        return
    found = [None if isinstance(each, DecodeError) else (each.envelope, each.data) for each in results]
    if len(found) == len(entries):
        assert found == [over_http(STRUCTURED, [], entry) for entry in entries]


@given(bodies(), st.lists(st.tuples(st.text(max_size=12), st.binary(max_size=12)), max_size=3))
def test_record_of_any_kind_is_read_or_refused(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    taken = from_the_log(headers, value)
    assert taken is None or isinstance(taken[0], Envelope)
