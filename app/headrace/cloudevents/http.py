"""The CloudEvents HTTP protocol binding: requests to events, in structured, batched and binary mode."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from headrace.cloudevents.attributes import ATTRIBUTES, TOO_DEEP, check_json, check_name, check_utf8, to_envelope
from headrace.cloudevents.limits import check_extensions
from headrace.cloudevents.record import STRUCTURED, names_cloudevents
from headrace.cloudevents.structured import Structured, decode_structured
from headrace.envelope import Envelope
from headrace.errors import DecodeError, EventError

BATCHED = "application/cloudevents-batch+json"
Mode = Literal["structured", "batched", "binary", "plain"]
RawHeaders = Iterable[tuple[bytes, bytes]]
"""Header fields as ASGI hands them over: names in lower case."""

_UTF8 = frozenset({"utf-8", "utf8", "us-ascii"})
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_JSON = re.compile(r"[a-z0-9!#$&^_.+-]+/(json|[a-z0-9!#$&^_.+-]+\+json)")


class MediaTypeError(EventError):
    """The content type is not one that is read here."""

    reason = "media_type"


class ParsedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event whose envelope is checked; its data are JSON, not yet compared with the event type."""

    envelope: Envelope
    data: bytes


_batch = msgspec.json.Decoder(list[Structured])
_entries = msgspec.json.Decoder(list[msgspec.Raw])


def request_mode(content_type: str | None) -> Mode:
    """Return the mode that the content type asks for. Raises: MediaTypeError that names what is accepted."""
    media_type = _media_type(content_type)
    if media_type == STRUCTURED:
        return "structured"
    if media_type == BATCHED:
        return "batched"
    if names_cloudevents(media_type) or _JSON.fullmatch(media_type) is None:
        raise MediaTypeError(
            f"the content type {content_type!r} is not accepted; send {STRUCTURED}, {BATCHED}, "
            "or application/json with ce-* headers."
        )
    return "binary"


def check_json_media_type(content_type: str | None) -> None:
    """Raise MediaTypeError if the content type is not JSON."""
    media_type = _media_type(content_type)
    if names_cloudevents(media_type) or _JSON.fullmatch(media_type) is None:
        raise MediaTypeError(f"the content type {content_type!r} is not accepted; send application/json.")


def parse_request(content_type: str | None, headers: RawHeaders, body: bytes) -> list[ParsedEvent | DecodeError]:
    """Return what each event of the request is, in order: parsed, or the error that says what is wrong with it.

    Structured and binary mode hold one event, batched mode any number of them.
    Raises: MediaTypeError: the content type. DecodeError: the request as a whole is not what its content type says.
    """
    mode = request_mode(content_type)
    if mode == "batched":
        return _parse_batch(body)
    try:
        return [_checked(*_parse_one(mode, content_type, headers, body))]
    except DecodeError as error:
        return [error]


def _parse_one(mode: Mode, content_type: str | None, headers: RawHeaders, body: bytes) -> tuple[Envelope, bytes]:
    if mode == "structured":
        return decode_structured(body, extensions=True)
    envelope = _binary_envelope(content_type, headers)
    check_json(body)
    return envelope, body


def _parse_batch(body: bytes) -> list[ParsedEvent | DecodeError]:
    check_utf8(body)
    try:
        events = _batch.decode(body)
    except (msgspec.DecodeError, RecursionError):
        events = None
    if events is not None:
        wrong = set(filter(names_cloudevents, {event.datacontenttype for event in events}))
        return [
            _wrong_media_type(event) if event.datacontenttype in wrong else ParsedEvent(event, bytes(event.data))
            for event in events
        ]
    try:
        entries = _entries.decode(body)
    except RecursionError:
        raise DecodeError(f"{TOO_DEEP}.") from None
    except msgspec.ValidationError:
        raise DecodeError("a batch is a JSON array of CloudEvents; this is another JSON value.") from None
    except msgspec.DecodeError as error:
        raise DecodeError(f"the batch is not JSON: {error}.") from None
    return [_parse_entry(bytes(entry)) for entry in entries]


def _parse_entry(entry: bytes) -> ParsedEvent | DecodeError:
    try:
        return _checked(*decode_structured(entry, extensions=True))
    except DecodeError as error:
        return error


def _checked(envelope: Envelope, data: bytes) -> ParsedEvent:
    """Refuse what a record in binary mode could not carry."""
    if names_cloudevents(envelope.datacontenttype):
        raise _wrong_media_type(envelope)
    return ParsedEvent(envelope, data)


def _wrong_media_type(envelope: Envelope) -> DecodeError:
    return DecodeError(
        f"datacontenttype {envelope.datacontenttype!r} names CloudEvents itself; name the media type of the data."
    )


def _binary_envelope(content_type: str | None, headers: RawHeaders) -> Envelope:
    attributes: dict[str, Any] = {}
    extensions: dict[str, str] = {}
    for raw_name, raw in headers:
        if raw_name[:3] != b"ce-":
            continue
        name = check_name(raw_name[3:].decode("latin-1"))
        target = attributes if name in ATTRIBUTES else extensions
        if name in target:
            raise DecodeError(f"the header ce-{name} is there twice; send it once.")
        target[name] = _header_text(name, raw)
    if not attributes:
        raise DecodeError(
            "this is not a CloudEvent: there are no ce-* headers; send ce-id, ce-source, ce-type and ce-specversion, "
            "or post plain JSON to /events/{type}."
        )
    if content_type is not None:
        attributes["datacontenttype"] = content_type
    check_extensions(extensions)
    return to_envelope(attributes, extensions)


def _header_text(name: str, raw: bytes) -> str:
    """Undo quoting, then percent-encoding. Source: HTTP binding 3.1.3.2, "HTTP Header Values"."""
    text = raw.strip().decode("latin-1")
    quoted = _QUOTED.fullmatch(text)
    if quoted is not None:
        text = re.sub(r"\\(.)", r"\1", quoted.group(1))
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise DecodeError(f"the header ce-{name} is not UTF-8; percent-encode UTF-8 text.") from None


def _media_type(content_type: str | None) -> str:
    """Return the media type in lower case. Raises: MediaTypeError if it is missing or not in UTF-8."""
    if not content_type or not content_type.strip():
        raise MediaTypeError(f"the content type is missing; send {STRUCTURED}, {BATCHED}, or application/json.")
    media_type, _, parameters = content_type.partition(";")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _UTF8:
            raise MediaTypeError(f"the charset {value.strip()[:50]} is not read; send UTF-8.")
    return media_type.strip().lower()
