"""Requests that are no events get a sentence that says why, each event by itself."""

from __future__ import annotations

import pytest

from headrace.cloudevents import MediaTypeError, ParsedEvent, check_json_media_type, parse_request, request_mode
from headrace.errors import DecodeError

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
EVENT = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1}}'
HEADERS = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-source", b"/s"), (b"ce-type", b"t")]


def the_error(content_type: str, headers: list[tuple[bytes, bytes]], body: bytes) -> str:
    """What is said of the request's one event."""
    (outcome,) = parse_request(content_type, headers, body)
    assert isinstance(outcome, DecodeError)
    return str(outcome)


def the_event(content_type: str, headers: list[tuple[bytes, bytes]], body: bytes) -> ParsedEvent:
    """The request's one event."""
    (outcome,) = parse_request(content_type, headers, body)
    assert isinstance(outcome, ParsedEvent), outcome
    return outcome


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        " ",
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/cloudevents+avro",
        "application/json; charset=latin-1",
        "json",
        "multipart/form-data; boundary=x",
    ],
)
def test_other_content_types_are_refused(content_type: str | None) -> None:
    """The error names the accepted ones."""
    with pytest.raises(MediaTypeError, match=r"application/|UTF-8"):
        request_mode(content_type)
    with pytest.raises(MediaTypeError, match=r"application/|UTF-8"):
        check_json_media_type(content_type)


@pytest.mark.parametrize(
    ("content_type", "mode"),
    [
        (STRUCTURED, "structured"),
        ("Application/CloudEvents+JSON; charset=UTF-8", "structured"),
        (BATCHED, "batched"),
        ("application/json", "binary"),
        ('application/json;charset="utf-8"', "binary"),
        ("application/vnd.shop.v1+json", "binary"),
        ("text/json", "binary"),
    ],
)
def test_the_content_type_decides_the_mode(content_type: str, mode: str) -> None:
    assert request_mode(content_type) == mode


def test_header_values_are_unquoted_and_percent_decoded() -> None:
    headers = [*HEADERS, (b"ce-subject", b"Euro%20%E2%82%AC%20%F0%9F%98%80"), (b"ce-where", b'"a \\"b\\" c"')]
    envelope = the_event("application/json", headers, b"{}").envelope
    assert envelope.subject == "Euro € 😀"
    assert envelope.extensions == {"where": 'a "b" c'}
    assert envelope.datacontenttype == "application/json"


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ([], "no ce-"),
        (HEADERS[:3], "type are missing"),
        ([*HEADERS, (b"ce-id", b"2")], "twice"),
        ([*HEADERS, (b"ce-subject", b"%FF")], "ce-subject is not UTF-8"),
        ([*HEADERS, (b"ce-subject", b"\xff")], "ce-subject is not UTF-8"),
        ([*HEADERS, (b"ce-data", b"x")], "not an attribute name"),
        ([*HEADERS, (b"ce-a_b", b"x")], "not an attribute name"),
        ([*HEADERS, (b"ce-time", b"noon")], "RFC 3339"),
        ([(b"ce-specversion", b"0.2"), *HEADERS[1:]], "'0.2'"),
    ],
)
def test_wrong_attributes_in_headers_are_named(headers: list[tuple[bytes, bytes]], sentence: str) -> None:
    assert sentence in the_error("application/json", headers, b"{}")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not JSON"),
        (b"{nope", "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'"\xff"', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_bodies_that_are_not_json_are_refused_in_every_mode(body: bytes, sentence: str) -> None:
    assert sentence in the_error("application/json", HEADERS, body)
    assert sentence in the_error(STRUCTURED, [], EVENT.replace(b'{"a":1}', body))
    assert sentence in the_error(STRUCTURED, [], b'{"id":' + body)
    with pytest.raises(DecodeError, match=sentence):
        parse_request(BATCHED, [], b"[" + body)


def test_a_batch_tells_of_each_event_that_is_wrong() -> None:
    good, bad = EVENT, EVENT.replace(b'"id":"1",', b"")
    outcomes = parse_request(BATCHED, [], b"[" + b",".join([good, bad, b"7", good]) + b"]")
    assert [isinstance(outcome, ParsedEvent) for outcome in outcomes] == [True, False, False, True]
    assert "id are missing" in str(outcomes[1])
    assert "JSON object" in str(outcomes[2])


def test_a_batch_is_an_array_and_may_be_empty() -> None:
    assert parse_request(BATCHED, [], b"[]") == []
    with pytest.raises(DecodeError, match="JSON array"):
        parse_request(BATCHED, [], EVENT)


@pytest.mark.parametrize("prefix", [b"", b'{"specversion":"1.0"},'])
def test_data_of_a_cloudevents_media_type_are_refused(prefix: bytes) -> None:
    """Whichever way the batch is read."""
    nested = EVENT.replace(b"{", b'{"datacontenttype":"application/cloudevents+json",', 1)
    assert "names CloudEvents itself" in str(parse_request(BATCHED, [], b"[" + prefix + nested + b"]")[-1])
    assert "names CloudEvents itself" in the_error(STRUCTURED, [], nested)


def test_a_lone_surrogate_in_an_attribute_is_refused() -> None:
    assert the_error(STRUCTURED, [], EVENT.replace(b'"1"', b'"\\ud800"'))


def test_an_event_without_data_has_the_data_null() -> None:
    assert the_event(STRUCTURED, [], EVENT.replace(b',"data":{"a":1}', b"")).data == b"null"
