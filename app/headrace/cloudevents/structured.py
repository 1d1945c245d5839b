"""Structured mode: a CloudEvent as one JSON object."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from headrace.cloudevents.attributes import ATTRIBUTES, TOO_DEEP, check_json, check_name, check_utf8, to_envelope
from headrace.cloudevents.limits import check_extensions
from headrace.envelope import Envelope
from headrace.errors import DecodeError

_ABSENT = msgspec.Raw(b"null")


class Structured(Envelope, frozen=True, kw_only=True, gc=False, eq=False, forbid_unknown_fields=True):
    """A CloudEvent in the JSON format without unknown extensions: an envelope that also has the data.

    It is decoded in one step, and handed on as the event's envelope: to copy it would cost as much as to decode it.
    """

    specversion: Literal["1.0"]  # required here
    extensions: None = None  # an extension of that name is one of the unknown
    data: msgspec.Raw = _ABSENT


read_structured = msgspec.json.Decoder(Structured).decode
"""Return the event of UTF-8 bytes, which it does not check to be that. Raises: msgspec.DecodeError, RecursionError."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode

write_structured: Callable[[Structured], bytes] = _encode
"""Return the event, with its data, as one JSON object. Raises: UnicodeEncodeError."""


def decode_structured(value: bytes, *, extensions: bool) -> tuple[Envelope, bytes]:
    """Return the envelope and the data as JSON bytes; absent data are `null`. Raises: DecodeError."""
    if not value.isascii():
        check_utf8(value)
    try:
        event = read_structured(value)
    except (msgspec.DecodeError, RecursionError):
        return _decode_members(value, extensions)
    return event, bytes(event.data)


def encode_structured(envelope: Envelope, data: bytes) -> bytes:
    """Return the event as one JSON object. `data` are JSON bytes, and stay as they are.

    Raises: UnicodeEncodeError (half of a surrogate pair).
    """
    if type(envelope) is Structured:
        return _encode(envelope)  # its data are part of it
    extensions = b""
    if envelope.extensions:
        extensions = b"," + _encode(envelope.extensions)[1:-1]
        envelope = msgspec.structs.replace(envelope, extensions=None)
    return b'{"specversion":"1.0",%b%b,"data":%b}' % (_encode(envelope)[1:-1], extensions, data)


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
