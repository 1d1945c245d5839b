"""Records that are no events get a sentence that says why; odd records that are events are read."""

from __future__ import annotations

import pytest

from headrace.cloudevents import decode_record, encode_record
from headrace.envelope import Envelope
from headrace.errors import DecodeError
from headrace.log.ports import StoredRecord

DATA = b'{"customer": "ada", "amount": 3}'
EVENT = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1}}'
STRUCTURED = ("content-type", b"application/cloudevents+json")
JSON = ("content-type", b"application/json")
REQUIRED = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t"))


def record(value: bytes | None, *headers: tuple[str, bytes | None]) -> StoredRecord:
    """A record with these headers; on the wire a header may be null."""
    return StoredRecord("things", 0, 7, 0, b"k", value, headers)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        pytest.param(record(None, *REQUIRED), "tombstone", id="tombstone"),
        pytest.param(record(b"{not json", *REQUIRED, JSON), "not JSON", id="binary-not-json"),
        pytest.param(record(b"", *REQUIRED, JSON), "not JSON", id="binary-empty"),
        pytest.param(record(b"[" * 100_000, *REQUIRED, JSON), "nested too deeply", id="binary-deep"),
        pytest.param(record(b"[" * 100_000, STRUCTURED), "JSON object", id="structured-deep-array"),
        pytest.param(
            record(EVENT[:-1].replace(b"{", b'{"x":' + b"[" * 100_000, 1), STRUCTURED), "deeply", id="deep-member"
        ),
        pytest.param(record(b"\xff\xfe\x00"), "no CloudEvents headers and no specversion", id="bytes-without-headers"),
        pytest.param(record(b'"\xff"', *REQUIRED, JSON), "not UTF-8", id="binary-not-utf8"),
        pytest.param(record(EVENT.replace(b'"a"', b'"\xff"'), STRUCTURED), "not UTF-8", id="structured-not-utf8"),
        pytest.param(record(b'{"celsius": 21.5}'), "no CloudEvents headers and no specversion", id="json-no-event"),
        pytest.param(record(b'{"specversion": "1.0", "x": 2.5}'), "x must be a string", id="headerless-bad-event"),
        pytest.param(record(b'{"a": 1}', STRUCTURED), "id, source, type, specversion are missing", id="no-attributes"),
        pytest.param(record(b"[1]", STRUCTURED), "JSON object", id="structured-array"),
        pytest.param(record(b"{nope", STRUCTURED), "not JSON", id="structured-not-json"),
        pytest.param(record(DATA, JSON), "declare a function with @events.decoder", id="json-without-ce-headers"),
        pytest.param(record(DATA, JSON, ("traceparent", b"00-1-2-01")), "no CloudEvents headers", id="only-a-trace"),
        pytest.param(record(DATA, *REQUIRED[:3], JSON), "type are missing", id="binary-no-type"),
        pytest.param(record(DATA, ("ce_specversion", b"0.3"), *REQUIRED[1:]), "'0.3'", id="binary-version"),
        pytest.param(record(EVENT.replace(b"1.0", b"2.0"), STRUCTURED), "'2.0'", id="structured-version"),
        pytest.param(record(DATA, *REQUIRED[:1], ("ce_id", b""), *REQUIRED[2:]), "id is empty", id="binary-empty-id"),
        pytest.param(
            record(EVENT.replace(b'"/s"', b'""'), STRUCTURED), "source is empty", id="structured-empty-source"
        ),
        pytest.param(record(DATA, *REQUIRED, ("ce_subject", b"")), "subject is empty", id="binary-empty-subject"),
        pytest.param(record(DATA, *REQUIRED, ("ce_time", b"yesterday")), "RFC 3339", id="binary-time"),
        pytest.param(record(DATA, *REQUIRED, ("ce_time", b"2031-05-06T07:08:09")), "RFC 3339", id="binary-naive-time"),
        pytest.param(
            record(DATA, *REQUIRED[:3], ("ce_type", b"\xff\xff")), "ce_type is not UTF-8", id="header-not-utf8"
        ),
        pytest.param(record(DATA, *REQUIRED, ("ce_other", b"\xff")), "ce_other is not UTF-8", id="extension-not-utf8"),
        pytest.param(record(DATA, *REQUIRED, ("ce_subject", None)), "ce_subject is null", id="header-null"),
        pytest.param(record(DATA, *REQUIRED, ("ce_id", b"2")), "ce_id is there twice", id="attribute-twice"),
        pytest.param(
            record(DATA, *REQUIRED, ("ce_x", b"2"), ("ce_x", b"3")), "ce_x is there twice", id="extension-twice"
        ),
        pytest.param(record(DATA, *REQUIRED, ("ce_Bad-Name", b"2")), "not an attribute name", id="binary-name"),
        pytest.param(record(DATA, *REQUIRED, ("ce_data", b"2")), "not an attribute name", id="binary-data"),
        pytest.param(
            record(EVENT.replace(b"{", b'{"badName":"x",', 1), STRUCTURED),
            "not an attribute name",
            id="structured-name",
        ),
        pytest.param(record(EVENT.replace(b'"1"', b"1"), STRUCTURED), "id must be a string", id="structured-number-id"),
        pytest.param(
            record(EVENT.replace(b"{", b'{"x":[1],', 1), STRUCTURED), "x must be", id="structured-list-extension"
        ),
        pytest.param(record(EVENT.replace(b"{", b'{"data_base64":"e30=",', 1), STRUCTURED), "both", id="both-data"),
        pytest.param(
            record(b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"%%"}', STRUCTURED),
            "base64",
            id="bad-base64",
        ),
        pytest.param(
            record(b"[]", ("content-type", b"application/cloudevents-batch+json")), "not read", id="batch-record"
        ),
        pytest.param(record(DATA, *REQUIRED, JSON, JSON), "content-type is there twice", id="content-type-twice"),
    ],
)
@pytest.mark.parametrize("extensions", [False, True])
def test_what_is_no_event_is_refused_with_the_reason(bad: StoredRecord, sentence: str, extensions: bool) -> None:
    with pytest.raises(DecodeError, match=sentence) as caught:
        decode_record(bad, extensions=extensions)
    assert caught.value.reason == "decode"
    assert len(str(caught.value)) < 300


def test_a_record_without_headers_may_be_a_structured_event() -> None:
    """It is read in structured mode when its value is an event."""
    assert decode_record(record(EVENT)) == (Envelope(id="1", source="/s", type="t"), b'{"a":1}')


def test_a_structured_content_type_may_have_parameters() -> None:
    """It may be written in any case."""
    content_type = ("content-type", b"Application/CloudEvents+JSON; charset=utf-8")
    assert decode_record(record(EVENT, content_type))[0].id == "1"


def test_extensions_may_be_numbers_and_booleans_in_json() -> None:
    """Null means that the extension is absent."""
    value = EVENT.replace(b"{", b'{"sequence":7,"flag":true,"gone":null,"subject":null,', 1)
    envelope, _ = decode_record(record(value, STRUCTURED), extensions=True)
    assert envelope.sequence == "7"
    assert envelope.subject is None
    assert envelope.extensions == {"flag": "true"}


def test_base64_data_are_read_as_the_json_they_hold() -> None:
    value = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"eyJhIjoxfQ=="}'
    assert decode_record(record(value, STRUCTURED))[1] == b'{"a":1}'


def test_an_attribute_named_extensions_is_an_extension() -> None:
    binary, _ = decode_record(record(DATA, *REQUIRED, ("ce_extensions", b"x")), extensions=True)
    structured, _ = decode_record(record(EVENT.replace(b"{", b'{"extensions":"x",', 1), STRUCTURED), extensions=True)
    assert binary.extensions == structured.extensions == {"extensions": "x"}


def test_a_nul_in_a_text_is_read() -> None:
    envelope, data = decode_record(record(b'"\\u0000"', *REQUIRED[:3], ("ce_type", b"t\x00")))
    assert (envelope.type, data) == ("t\x00", b'"\\u0000"')


def test_the_events_trace_comes_before_the_transports_trace() -> None:
    plain = (("traceparent", b"00-plain"), ("tracestate", b"p=1"))
    assert decode_record(record(DATA, *plain, *REQUIRED))[0].traceparent == "00-plain"
    own = decode_record(record(DATA, *plain, *REQUIRED, ("ce_traceparent", b"00-own")))[0]
    assert own.traceparent == "00-own"
    assert decode_record(record(EVENT, STRUCTURED, *plain))[0].traceparent == "00-plain"
    assert decode_record(record(DATA, ("traceparent", b"\xff"), *REQUIRED))[0].traceparent is None


def test_a_record_carries_the_trace_in_plain_headers_too() -> None:
    written = encode_record(Envelope(id="1", source="/s", type="t", traceparent="00-x"), DATA, topic="things", key="k")
    assert decode_record(written)[0].traceparent == "00-x"
    assert ("traceparent", b"00-x") in written.headers
    assert written.key == b"k"


def test_an_event_that_would_be_read_otherwise_is_not_written() -> None:
    """What would be read back as another event is refused."""
    envelope = Envelope(id="1", source="/s", type="t", datacontenttype=" Application/CloudEvents+json")
    with pytest.raises(DecodeError, match="names CloudEvents itself"):
        encode_record(envelope, EVENT, topic="things", key="k")


def test_text_that_is_no_unicode_is_not_written() -> None:
    with pytest.raises(DecodeError, match="not Unicode"):
        encode_record(Envelope(id="\ud800", source="/s", type="t"), DATA, topic="things", key="k")
