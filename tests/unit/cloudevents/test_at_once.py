"""Records decoded together are what each is alone, whatever stands beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cloudevents import decode_at_once, decode_record
from headrace.cloudevents.record import OWN_HEADER, are_own, is_own
from headrace.errors import DecodeError
from headrace.log.ports import StoredRecord

TRACE = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
STATE = ("tracestate", b"a=1")
HEADERS = [(OWN_HEADER,), (OWN_HEADER, TRACE), (OWN_HEADER, ("other", b"x")), (("content-type", b"text/plain"),), ()]


def body(id: str = "1", **more: object) -> bytes:
    return json.dumps(
        {"specversion": "1.0", "id": id, "source": "/s", "type": "noted", "data": {"a": id}} | more
    ).encode()


def record(value: bytes | None, *headers: tuple[str, bytes], offset: int = 0) -> StoredRecord:
    return StoredRecord("notes", 0, offset, 0, b"a", value, headers)


def check(records: Sequence[StoredRecord]) -> bool:
    """Compare with each record alone; tell whether they were decoded together."""
    events = decode_at_once(records)
    if events is None:
        return False
    assert [(event, bytes(event.data)) for event in events] == [decode_record(each) for each in records]
    return True


CUT = body().index(b'"id"')
PLAIN = [record(body(str(number), traceparent=TRACE[1].decode()), OWN_HEADER, TRACE) for number in range(3)]
ALONE = {
    "tombstone": record(None, OWN_HEADER),
    "nothing": record(b"", OWN_HEADER),
    "white space": record(b" ", OWN_HEADER),
    "null": record(b"null", OWN_HEADER),
    "extension": record(body(own="x"), OWN_HEADER),
    "base64": record(body()[:-1].replace(b'"data"', b'"data_base64": "MQ==", "x"') + b"}", OWN_HEADER),
    "two events": record(body("1") + b" " + body("2"), OWN_HEADER),
    "two events on two lines": record(body("1") + b"\n" + body("2"), OWN_HEADER),
    "first half": record(body()[:CUT], OWN_HEADER),
    "second half": record(body()[CUT:], OWN_HEADER),
    "half up to a brace": record(b'{"specversion":"1.0","data":"}', OWN_HEADER),
    "half from a brace on": record(b'{","id":"1","source":"/s","type":"noted"}', OWN_HEADER),
    "not UTF-8": record(body().replace(b'{"a": "1"}', b'"\xff"'), OWN_HEADER),
    "deep": record(body().replace(b'{"a": "1"}', b"[" * 100_000), OWN_HEADER),
}


@pytest.mark.parametrize("name", ALONE)
def test_what_must_be_looked_at_alone_is(name: str) -> None:
    assert not check([*PLAIN, ALONE[name], record(body("9"), OWN_HEADER)])


@pytest.mark.parametrize(
    "names",
    [
        ["two events", "white space"],
        ["first half", "second half", "two events"],
        ["two events on two lines", "first half", "second half"],
    ],
)
def test_as_many_events_as_records_are_not_enough(names: list[str]) -> None:
    assert not check([ALONE[name] for name in names])


def test_plain_events_are_decoded_together() -> None:
    assert check([record(body(str(number)), OWN_HEADER) for number in range(200)])
    assert check(PLAIN)
    assert check([*PLAIN, record(body(), OWN_HEADER)])
    assert check([*PLAIN, record(body().replace(b", ", b",\n"), OWN_HEADER)])
    assert check([])


def test_text_beyond_ascii_is_read() -> None:
    assert check([record(body(data="\u00e4\u2028").decode().encode(), OWN_HEADER), *PLAIN])
    assert check([record(body().replace(b'"1"}', '"ä"}'.encode()), OWN_HEADER), *PLAIN])


def test_an_event_of_another_mode_is_left_to_the_other_way() -> None:
    binary = record(b"{}", ("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t"))
    assert not check([PLAIN[0], binary, PLAIN[1]])
    assert not check([PLAIN[0], record(body(traceparent="x"), TRACE, OWN_HEADER)]), "the first header is the one"


def test_trace_of_the_headers_alone_is_not_lost() -> None:
    lacking = record(body(), OWN_HEADER, TRACE)
    assert not check([PLAIN[0], lacking, PLAIN[1]])
    assert decode_record(lacking)[0].traceparent == TRACE[1].decode()


@st.composite
def values(draw: st.DrawFn) -> bytes:
    """An event, two of them, a part of one, or one with a few bytes changed."""
    value = bytearray(draw(st.sampled_from([body("1"), body("2", traceparent="x"), b"", b" ", b"null", b"{}"])))
    if draw(st.booleans()):
        value += draw(st.sampled_from([b"\n", b" ", b","])) + body("3")
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 200), st.sampled_from(b'{}",:\n \xff')), max_size=2)):
        value[at : at + 1] = bytes([byte])
    begin, end = sorted(draw(st.tuples(st.integers(0, 250), st.integers(0, 250))))
    return bytes(value[begin:end] if draw(st.integers(0, 3)) == 0 else value)


@given(st.lists(st.tuples(values(), st.sampled_from(HEADERS)), max_size=6))
def test_no_neighbour_changes_what_a_record_is(pairs: list[tuple[bytes, tuple[tuple[str, bytes], ...]]]) -> None:
    records = [record(value, *headers, offset=number) for number, (value, headers) in enumerate(pairs)]
    try:
        alone = [decode_record(each) for each in records]
    except DecodeError:
        assert decode_at_once(records) is None
    else:
        events = decode_at_once(records)
        assert events is None or [(event, bytes(event.data)) for event in events] == alone


@given(st.lists(st.sampled_from([*HEADERS, (OWN_HEADER, TRACE, STATE), (OWN_HEADER, OWN_HEADER), (TRACE, OWN_HEADER)])))
def test_headers_of_many_are_own_if_those_of_each_are(many: list[tuple[tuple[str, bytes], ...]]) -> None:
    assert are_own(many) is all(map(is_own, many))
