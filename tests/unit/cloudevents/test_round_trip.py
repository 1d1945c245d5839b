"""Whatever one side writes, the other reads back: over HTTP, in the log, in every mode."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from headrace.cloudevents import ParsedEvent, decode_record, encode_record, encode_structured, parse_request
from headrace.cloudevents.attributes import ATTRIBUTES
from headrace.envelope import Envelope
from headrace.log.ports import NewRecord, StoredRecord

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1, 1, 3), datetime(9998, 1, 1), timezones=ZONES | st.just(UTC))  # noqa: DTZ001 - st adds it
EXTENSION_NAMES = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(lambda n: n not in ATTRIBUTES and n != "data")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
DATA = JSON.map(lambda value: json.dumps(value, ensure_ascii=False).encode())


def envelopes() -> st.SearchStrategy[Envelope]:
    """Every envelope that may be published."""
    maybe = st.none() | TEXT
    return st.builds(
        Envelope,
        id=NAME,
        source=NAME,
        type=NAME,
        subject=st.none() | NAME,
        time=st.none() | TIMES,
        datacontenttype=st.none() | st.sampled_from(["application/json", "application/vnd.shop+json; charset=utf-8"]),
        dataschema=maybe,
        partitionkey=maybe,
        sequence=maybe,
        traceparent=maybe,
        tracestate=maybe,
        correlationid=maybe,
        causationid=maybe,
        extensions=st.none() | st.dictionaries(EXTENSION_NAMES, TEXT, min_size=1, max_size=3),
    )


def stored(record: NewRecord) -> StoredRecord:
    """The record as a log gives it back."""
    return StoredRecord(record.topic, 0, 0, 0, record.key, record.value, tuple(record.headers))


@given(envelopes(), DATA)
def test_a_record_in_binary_mode_reads_back_as_its_event(envelope: Envelope, data: bytes) -> None:
    """The event that is read is the event that was written."""
    record = stored(encode_record(envelope, data, topic="things", key="k"))
    assert decode_record(record, extensions=True) == (envelope, data)


@given(envelopes(), DATA)
def test_an_event_in_structured_mode_reads_back_from_a_record(envelope: Envelope, data: bytes) -> None:
    value = encode_structured(envelope, data)
    assert b"\n" not in value
    record = StoredRecord("things", 0, 0, 0, None, value, (("content-type", b"application/cloudevents+json"),))
    decoded, decoded_data = decode_record(record, extensions=True)
    assert decoded == envelope
    assert json.loads(decoded_data) == json.loads(data)


@given(envelopes(), DATA)
def test_unknown_extensions_are_left_out_unless_asked_for(envelope: Envelope, data: bytes) -> None:
    record = stored(encode_record(envelope, data, topic="things", key="k"))
    assert decode_record(record)[0].extensions is None


@given(st.lists(st.tuples(envelopes(), DATA), min_size=1, max_size=4))
def test_a_batch_over_http_is_what_its_events_are_one_by_one(events: list[tuple[Envelope, bytes]]) -> None:
    bodies = [encode_structured(*event) for event in events]
    batch = parse_request("application/cloudevents-batch+json", [], b"[" + b",".join(bodies) + b"]")
    singles = [parse_request("application/cloudevents+json; charset=UTF-8", [], body)[0] for body in bodies]
    assert batch == singles
    assert [parsed.envelope for parsed in batch if isinstance(parsed, ParsedEvent)] == [event[0] for event in events]


@given(envelopes(), DATA)
def test_what_http_lets_in_is_read_back_from_the_log(envelope: Envelope, data: bytes) -> None:
    (parsed,) = parse_request("application/cloudevents+json", [], encode_structured(envelope, data))
    assert isinstance(parsed, ParsedEvent)
    record = stored(encode_record(parsed.envelope, parsed.data, topic="things", key="k"))
    assert decode_record(record, extensions=True) == (parsed.envelope, parsed.data)


@given(envelopes(), DATA)
def test_binary_mode_over_http_is_structured_mode_in_headers(envelope: Envelope, data: bytes) -> None:
    members = json.loads(encode_structured(envelope, data))
    del members["data"]
    content_type = members.pop("datacontenttype", "application/json")
    headers = [(f"ce-{name}".encode(), quote(value, safe="").encode()) for name, value in members.items()]
    (parsed,) = parse_request(content_type, headers, data)
    assert isinstance(parsed, ParsedEvent)
    record = stored(encode_record(parsed.envelope, parsed.data, topic="things", key="k"))
    assert decode_record(record, extensions=True) == (parsed.envelope, parsed.data)
    assert parsed.envelope == (envelope if envelope.datacontenttype else decode_record(record, extensions=True)[0])
