"""Attributes have limits, the same ones over HTTP and in the log; whatever bytes come in, the error is a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cloudevents import ParsedEvent, check_lengths, decode_record, encode_record, parse_request
from headrace.envelope import Envelope
from headrace.errors import DecodeError
from headrace.log.ports import StoredRecord

SMALL = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
LIMITS = {
    "id": 1_024,
    "source": 2_048,
    "type": 256,
    "subject": 2_048,
    "partitionkey": 2_048,
    "tracestate": 2_048,
    "correlationid": 2_048,
    "causationid": 2_048,
    "dataschema": 2_048,
    "sequence": 2_048,
}


def ways(attributes: dict[str, str]) -> list[Any]:
    """Return what each way in makes of the attributes: an event, or the error."""
    binary = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
    structured = json.dumps(attributes | {"data": 1}).encode()
    http = [(f"ce-{name}".encode(), value.encode()) for name, value in attributes.items()]
    batch = b"[" + structured + b"]"
    return [
        _decoded(StoredRecord("t", 0, 0, 0, None, b"1", tuple(binary))),
        _decoded(StoredRecord("t", 0, 0, 0, None, structured, (("content-type", b"application/cloudevents+json"),))),
        _decoded(StoredRecord("t", 0, 0, 0, None, structured, ())),
        parse_request("application/json", http, b"1")[0],
        parse_request("application/cloudevents+json", (), structured)[0],
        parse_request("application/cloudevents-batch+json", (), batch)[0],
    ]


def _decoded(record: StoredRecord) -> Any:
    try:
        return decode_record(record)
    except DecodeError as error:
        return error


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_attribute_has_the_same_limit_on_every_way_in(name: str, limit: int) -> None:
    for result in ways(SMALL | {name: "x" * limit}):
        assert not isinstance(result, DecodeError)
    for result in ways(SMALL | {name: "x" * (limit + 1)}):
        assert isinstance(result, DecodeError)
        assert f"the attribute {name} has {limit + 1:,} characters; at most {limit:,} are taken" in str(result)
    for result in ways(SMALL | {name: "x" * 600_000}):
        assert isinstance(result, DecodeError)
        assert len(str(result)) < 200


@pytest.mark.parametrize(
    ("extensions", "sentence"),
    [
        ({f"x{number}": "1" for number in range(65)}, "has 65 extensions; at most 64 are taken"),
        ({"x": "y" * 8_192}, "have 8,193 bytes; at most 8,192 are taken"),
        ({"x": "\U0001f600" * 2_048}, "have 8,193 bytes; at most 8,192 are taken"),
    ],
)
def test_extensions_have_a_limit_on_every_way_in(extensions: dict[str, str], sentence: str) -> None:
    for result in ways(SMALL | extensions):
        assert isinstance(result, DecodeError)
        assert sentence in str(result)
    with pytest.raises(DecodeError, match=sentence):
        check_lengths(Envelope(id="1", source="/s", type="t", extensions=extensions))
    first = dict(list(extensions.items())[:64])
    if sum(map(len, first.values())) < 2_000:
        assert not any(isinstance(result, DecodeError) for result in ways(SMALL | first))


def test_envelope_made_by_hand_has_the_same_limits() -> None:
    check_lengths(Envelope(id="i" * 1_024, source="s" * 2_048, type="t" * 256, extensions={"a": "b"}))
    for name, limit in LIMITS.items():
        with pytest.raises(DecodeError, match=f"the attribute {name} has {limit + 1:,} characters"):
            check_lengths(Envelope(**(SMALL | {name: "x" * (limit + 1)})))  # type: ignore[arg-type]


def test_event_at_every_limit_fits_the_log_after_http() -> None:
    attributes = SMALL | {name: "x" * limit for name, limit in LIMITS.items()}
    (parsed,) = parse_request("application/cloudevents+json", (), json.dumps(attributes | {"data": 1}).encode())
    assert isinstance(parsed, ParsedEvent)
    record = encode_record(parsed.envelope, parsed.data, topic="t", key="k")
    assert sum(len(name) + len(value) for name, value in record.headers) < 30_000
    assert decode_record(StoredRecord("t", 0, 0, 0, record.key, record.value, tuple(record.headers))) == (
        parsed.envelope,
        parsed.data,
    )


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "ce_id",
                "ce_source",
                "ce_type",
                "ce_specversion",
                "ce_time",
                "ce_x",
                "content-type",
                "traceparent",
                "other",
            ]
        )
        | st.text(max_size=10).map("ce_".__add__)
        | st.text(max_size=10),
        st.none()
        | st.binary(max_size=20)
        | st.sampled_from([b"1.0", b"t", b"application/json", b"application/cloudevents+json"]),
    ),
    max_size=8,
)
MEMBERS: st.SearchStrategy[dict[str, object]] = st.dictionaries(
    st.sampled_from(["specversion", "id", "source", "type", "time", "subject", "data", "data_base64", "x"]),
    st.sampled_from(["1.0", "t", 1, True, None, 2.5, [], {}, "\ud83d", "2031-05-06T07:08:09Z"]),
)


@given(HEADERS, st.none() | st.binary(max_size=40) | MEMBERS.map(lambda members: json.dumps(members).encode()))
def test_whatever_a_record_holds_its_error_is_a_sentence(
    headers: list[tuple[str, bytes | None]], value: bytes | None
) -> None:
    record = StoredRecord("t", 0, 0, 0, None, value, tuple(headers))
    for extensions in (True, False):
        try:
            assert len(decode_record(record, extensions=extensions)[0].identity) == 16
        except DecodeError as error:
            sentence = str(error)
        else:
            continue
        assert 0 < len(sentence) < 400
