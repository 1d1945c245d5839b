"""Structured mode: a CloudEvent as one JSON object."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from headrace.cloudevents.attributes import ATTRIBUTES, TOO_DEEP, check_json, check_name, check_utf8, to_envelope
from headrace.cloudevents.limits import check_extensions
from headrace.envelope import Envelope, Id, Instant, Source, Subject, Text, Type
from headrace.errors import DecodeError

_ABSENT = msgspec.Raw(b"null")


class Structured(msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True):
    """A CloudEvent in the JSON format without unknown extensions, which is decoded fastest."""

    id: Id
    source: Source
    type: Type
    specversion: str
    subject: Subject | None = None
    time: Instant | None = None
    datacontenttype: Text | None = None
    dataschema: Text | None = None
    partitionkey: Text | None = None
    sequence: Text | None = None
    traceparent: Text | None = None
    tracestate: Text | None = None
    correlationid: Text | None = None
    causationid: Text | None = None
    data: msgspec.Raw = _ABSENT
    data_base64: str | None = None


_one = msgspec.json.Decoder(Structured)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value = msgspec.json.Decoder()


def decode_structured(value: bytes, *, extensions: bool) -> tuple[Envelope, bytes]:
    """Return the envelope and the data as JSON bytes; absent data are `null`. Raises: DecodeError."""
    check_utf8(value)
    try:
        event = _one.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return _decode_members(value, extensions)
    return from_structured(event) or _decode_members(value, extensions)


def from_structured(event: Structured) -> tuple[Envelope, bytes] | None:
    """Return the envelope and the data, or None if only `decode_structured` can read the event."""
    if event.specversion != "1.0" or event.data_base64 is not None:
        return None
    envelope = Envelope(
        id=event.id,
        source=event.source,
        type=event.type,
        subject=event.subject,
        time=event.time,
        datacontenttype=event.datacontenttype,
        dataschema=event.dataschema,
        partitionkey=event.partitionkey,
        sequence=event.sequence,
        traceparent=event.traceparent,
        tracestate=event.tracestate,
        correlationid=event.correlationid,
        causationid=event.causationid,
    )
    return envelope, bytes(event.data)


def encode_structured(envelope: Envelope, data: bytes) -> bytes:
    """Return the event as one JSON object on one line. `data` are JSON bytes."""
    members = {name: value for name in envelope.__struct_fields__ if (value := getattr(envelope, name)) is not None}
    members.update(members.pop("extensions", {}))
    members["data"] = msgspec.Raw(msgspec.json.format(data, indent=-1))
    return msgspec.json.encode(members)


def _decode_members(value: bytes, extensions: bool) -> tuple[Envelope, bytes]:
    """Read unknown extensions, integers, booleans and base64; whatever is wrong ends as a sentence. Slower."""
    try:
        members = _members.decode(value)
    except RecursionError:
        raise DecodeError(f"{TOO_DEEP}.") from None
    except msgspec.ValidationError:
        raise DecodeError("a CloudEvent is a JSON object; this is another JSON value.") from None
    except msgspec.DecodeError as error:
        raise DecodeError(f"the event is not JSON: {error}.") from None
    data, base64_data = members.pop("data", None), members.pop("data_base64", None)
    attributes: dict[str, Any] = {}
    others: dict[str, str] = {}
    for name, raw in members.items():
        text = _attribute(check_name(name), raw)
        if text is not None:
            (attributes if name in ATTRIBUTES else others)[name] = text
    if others:
        check_extensions(others)
    return to_envelope(attributes, others if extensions else None), _data(data, base64_data)


_TEXT_ONLY = frozenset({"id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema"})


def _attribute(name: str, raw: msgspec.Raw) -> str | None:
    try:
        value = _value.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise DecodeError(f"the attribute {name} cannot be read.") from None
    if value is None or isinstance(value, str):
        return value
    if name in _TEXT_ONLY:
        raise DecodeError(f"the attribute {name} must be a string.")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise DecodeError(f"the attribute {name} must be a string, an integer or a boolean.")


def _data(data: msgspec.Raw | None, base64_data: msgspec.Raw | None) -> bytes:
    if base64_data is None or bytes(base64_data) == b"null":
        return bytes(data) if data is not None else b"null"
    if data is not None:
        raise DecodeError("the event has both data and data_base64; send one of them.")
    try:
        decoded = base64.b64decode(_value.decode(base64_data), validate=True)
    except (ValueError, TypeError, msgspec.DecodeError):
        raise DecodeError("data_base64 is not a string of base64.") from None
    check_json(decoded)
    return decoded
