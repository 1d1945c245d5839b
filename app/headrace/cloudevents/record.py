"""The CloudEvents Kafka protocol binding: records to events and back.

Structured mode: the value is the whole event; the `content-type` header says so. Binary mode: the attributes are `ce_`
headers, the value is the data. Both are read; what the platform writes is structured, since a record with one header is
read and decoded in half the time of one with eight. A record with neither `ce_` headers nor a content type is read as a
structured event, since many producers leave the header out. One that is not a CloudEvent at all belongs to a foreign
topic, which needs a decoder: its error says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec

from headrace.cloudevents.attributes import ATTRIBUTES, check_json, check_name, raise_explained
from headrace.cloudevents.limits import check_extensions
from headrace.cloudevents.structured import decode_structured, encode_structured
from headrace.envelope import Envelope
from headrace.errors import DecodeError
from headrace.log.ports import Headers, NewRecord, Record

CONTENT_TYPE = "content-type"
STRUCTURED = "application/cloudevents+json"
JSON = "application/json"
OWN_HEADER = (CONTENT_TYPE, STRUCTURED.encode())

FOREIGN = (
    "the record has no CloudEvents headers and no specversion; for a foreign topic declare a function with "
    "@events.decoder(topic), which makes events of its records."
)

_PREFIX = "ce_"
_ATTRIBUTE_OF = {f"{_PREFIX}{name}": name for name in ATTRIBUTES} | {
    CONTENT_TYPE: CONTENT_TYPE,
    "Content-Type": CONTENT_TYPE,
}
_TRACE = frozenset({"traceparent", "tracestate"})
_FOREIGN = _TRACE | {"datacontenttype"}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode_record(record: Record | NewRecord, *, extensions: bool = False) -> tuple[Envelope, bytes]:
    """Return the envelope and the data as JSON bytes.

    `extensions`: keep the attributes that the platform does not know. The trace context is read from the `ce_` headers
    first, else from plain `traceparent` and `tracestate` headers.
    Raises: DecodeError (a tombstone, not JSON, not UTF-8, not a CloudEvent, too long), which names the attribute.
    """
    value, headers = record.value, record.headers
    if value is None:
        raise DecodeError("the record is a tombstone (its value is null); an event has data.")
    if is_own(headers):
        envelope, data = decode_structured(value, extensions=extensions)
        if len(headers) == 1 or envelope.traceparent is not None:
            return envelope, data
    attributes: dict[str, Any] = {}
    others: list[tuple[str, bytes | None]] = []
    known = 0
    for name, raw in headers:
        attribute = _ATTRIBUTE_OF.get(name)
        if attribute is None:
            others.append((name, raw))
            continue
        try:
            attributes[attribute] = raw.decode()  # type: ignore[union-attr] # caught: asking costs more
            known += 1
        except (UnicodeDecodeError, AttributeError):
            _refuse_header(name, raw)
    if known != len(attributes):
        _refuse_duplicate(record)
    content_type = attributes.pop(CONTENT_TYPE, None)
    unknown = _read_others(attributes, others) if others else None
    if content_type is None:
        if not unknown and attributes.keys() <= _TRACE:
            return _headerless(value, attributes, extensions)
    elif content_type == JSON:  # most of all, so tried first
        attributes["datacontenttype"] = content_type
    elif names_cloudevents(content_type):
        if content_type.partition(";")[0].strip().lower() != STRUCTURED:
            raise DecodeError(f"the content type {content_type[:100]!r} is not read; send {STRUCTURED} or binary mode.")
        return _structured(value, attributes, extensions)
    else:
        attributes["datacontenttype"] = content_type
    check_json(value)
    if unknown:
        check_extensions(unknown)
        if extensions:
            attributes["extensions"] = unknown
    try:
        return msgspec.convert(attributes, Envelope), value
    except msgspec.ValidationError as error:
        if attributes.keys() <= _FOREIGN:
            raise DecodeError(FOREIGN) from error
        raise_explained(attributes, error)


def encode_record(envelope: Envelope, data: bytes, *, topic: str, key: str) -> NewRecord:
    """Return the event as a record in structured mode; the trace context is written as plain headers as well.

    `data` are those of the envelope if it was decoded together with them.
    Raises: DecodeError if a record cannot carry the event.
    """
    if names_cloudevents(envelope.datacontenttype):
        raise DecodeError(
            f"datacontenttype {envelope.datacontenttype!r} names CloudEvents itself; name the type of the data."
        )
    if envelope.extensions is not None:
        for name in envelope.extensions:
            check_name(name)
    try:
        headers = own_headers(envelope.traceparent, envelope.tracestate)
        return NewRecord(topic, key.encode(), encode_structured(envelope, data), headers)
    except UnicodeEncodeError as error:
        raise DecodeError(f"the event {envelope.id!r} holds text that is not Unicode: {error.reason}.") from None


def own_headers(traceparent: str | None, tracestate: str | None) -> list[tuple[str, bytes]]:
    """Return the headers of a record in structured mode. Raises: UnicodeEncodeError."""
    headers = [OWN_HEADER]
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    if tracestate is not None:
        headers.append(("tracestate", tracestate.encode()))
    return headers


def names_cloudevents(media_type: str | None) -> bool:
    """True for a media type of CloudEvents itself, which no data may have."""
    if media_type is None or media_type == JSON:  # what it nearly always is
        return False
    return media_type.lstrip()[:23].lower().startswith("application/cloudevents")


def is_own(headers: Headers) -> bool:
    """Tell whether the platform writes such headers: its content type, and nothing but the trace behind it."""
    if not headers or headers[0] != OWN_HEADER:
        return False
    return len(headers) == 1 or (len(headers) <= 3 and headers[1][0] in _TRACE and headers[-1][0] in _TRACE)


def are_own(many: Sequence[Headers]) -> bool:
    """Tell whether `is_own` is true of each, for half the time if all have a traceparent and nothing else."""
    if set(map(len, many)) == {2} and [headers[1][0] for headers in many].count("traceparent") == len(many):
        return [headers[0] for headers in many].count(OWN_HEADER) == len(many)
    return all(map(is_own, many))


def _read_others(attributes: dict[str, Any], headers: list[tuple[str, bytes | None]]) -> dict[str, str]:
    """Return the unknown extensions; plain trace headers go into `attributes` if the event has none of its own."""
    unknown: dict[str, str] = {}
    for name, raw in headers:
        if name[:3] == _PREFIX:
            attribute = check_name(name[3:])
            if attribute in unknown:
                raise DecodeError(f"the header {name} is there twice; send it once.")
            try:
                unknown[attribute] = raw.decode()  # type: ignore[union-attr]
            except (UnicodeDecodeError, AttributeError):
                _refuse_header(name, raw)
        elif name in _TRACE and name not in attributes:
            try:
                attributes[name] = raw.decode("ascii")  # type: ignore[union-attr]
            except (UnicodeDecodeError, AttributeError):
                continue  # a foreign header's fault does not cost an event
    return unknown


def _headerless(value: bytes, trace: dict[str, Any], extensions: bool) -> tuple[Envelope, bytes]:
    try:
        return _structured(value, trace, extensions)
    except DecodeError as error:
        try:
            is_event = "specversion" in _members.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            is_event = False
        if is_event:
            raise
        raise DecodeError(FOREIGN) from error


def _structured(value: bytes, trace: dict[str, Any], extensions: bool) -> tuple[Envelope, bytes]:
    envelope, data = decode_structured(value, extensions=extensions)
    if envelope.traceparent is None and "traceparent" in trace:
        envelope = msgspec.structs.replace(
            envelope, traceparent=trace["traceparent"], tracestate=envelope.tracestate or trace.get("tracestate")
        )
    return envelope, data


def _refuse_header(name: str, raw: bytes | None) -> NoReturn:
    if raw is None:
        raise DecodeError(f"the header {name} is null; leave it out or fill it in.")
    raise DecodeError(f"the header {name} is not UTF-8; the Kafka binding of CloudEvents asks for UTF-8 text.")


def _refuse_duplicate(record: Record | NewRecord) -> NoReturn:
    names = [name for name, _ in record.headers if name in _ATTRIBUTE_OF]
    twice = next(name for name in names if names.count(name) > 1)
    raise DecodeError(f"the header {twice} is there twice; send it once.")
