"""The checks that every CloudEvent passes, whichever way it came in."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import msgspec

from headrace.envelope import Envelope
from headrace.errors import DecodeError

ATTRIBUTES = frozenset(Envelope.__struct_fields__) - {"extensions"}
"""The attributes that an Envelope has a field for. One named `extensions` is an extension like any other."""

REQUIRED = ("id", "source", "type", "specversion")
TOO_DEEP = "the JSON is nested too deeply; send at most a few hundred levels"

_TOO_LONG = re.compile(r"of length <= (\d+) - at `\$\.(\w+)`")
_NAME = re.compile(r"[a-z0-9]+")
_RESERVED = frozenset({"data", "data_base64"})
_json = msgspec.json.Decoder(msgspec.Raw)


def check_json(data: bytes) -> None:
    """Raise DecodeError if the bytes are not one JSON value in UTF-8."""
    check_utf8(data)
    try:
        _json.decode(data)
    except RecursionError:
        raise DecodeError(f"{TOO_DEEP}.") from None
    except msgspec.DecodeError as error:
        raise DecodeError(f"the data are not JSON: {error}.") from None


def check_utf8(data: bytes) -> None:
    """Raise DecodeError if the bytes are not UTF-8; msgspec does not look into strings that it skips."""
    if not data.isascii():
        try:
            str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise DecodeError(f"the bytes are not UTF-8 (byte {error.start}); send UTF-8.") from None


def check_name(name: str) -> str:
    """Return the attribute's name. Raises: DecodeError if CloudEvents does not allow it."""
    if name not in ATTRIBUTES and (name in _RESERVED or _NAME.fullmatch(name) is None):
        raise DecodeError(f"{name[:100]!r} is not an attribute name: use a-z and 0-9 only, and not 'data'.")
    return name


def to_envelope(attributes: dict[str, Any], extensions: dict[str, str] | None = None) -> Envelope:
    """Return the envelope of attributes given as text. Raises: DecodeError that names the attribute and the rule."""
    if "specversion" not in attributes:
        raise DecodeError(_missing(attributes))
    try:
        if extensions:
            attributes["extensions"] = extensions
        return msgspec.convert(attributes, Envelope)
    except msgspec.ValidationError as error:
        raise_explained(attributes, error)


def raise_explained(attributes: dict[str, Any], error: msgspec.ValidationError) -> NoReturn:
    """Raise DecodeError for attributes that msgspec refused, in words of CloudEvents."""
    if any(attributes.get(name) is None for name in REQUIRED):
        raise DecodeError(_missing(attributes)) from error
    version = attributes["specversion"]
    if version != "1.0":
        raise DecodeError(f"specversion is {str(version)[:20]!r}; only CloudEvents '1.0' is read.") from error
    for name in ("id", "source", "type", "subject"):
        if attributes.get(name) == "":
            raise DecodeError(f"the attribute {name} is empty; leave it out or fill it in.") from error
    if (too_long := _TOO_LONG.search(str(error))) is not None:
        name, limit = too_long[2], int(too_long[1])
        raise DecodeError(
            f"the attribute {name} has {len(attributes[name]):,} characters; at most {limit:,} are taken, "
            "send a shorter one."
        ) from error
    if "time" in attributes and str(error).endswith("`$.time`"):
        raise DecodeError(
            f"time is {str(attributes['time'])[:50]!r}; write RFC 3339 with an offset: 2031-05-06T07:08:09Z."
        ) from error
    raise DecodeError(f"the attributes are wrong: {str(error).replace('`$.', '`')}.") from error


def _missing(attributes: dict[str, Any]) -> str:
    missing = [name for name in REQUIRED if attributes.get(name) is None]
    return f"this is not a CloudEvent: the attributes {', '.join(missing)} are missing."
