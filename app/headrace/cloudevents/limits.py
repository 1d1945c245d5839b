"""How long the attributes of an event may be, whichever way it comes in.

An emitted event carries its cause's ids and trace. An attribute without a limit on the way in could make a record that
the log refuses on the way out. The limits of known attributes are part of their types (`headrace.envelope`), so a
decoder checks them at no cost; extensions are counted here.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.cloudevents.attributes import raise_explained
from headrace.envelope import Envelope
from headrace.errors import DecodeError

MAX_EXTENSIONS, MAX_EXTENSION_BYTES = 64, 8_192
"""The most unknown extensions of one event, and the most bytes of their names and values together."""


def check_lengths(envelope: Envelope) -> None:
    """Raise DecodeError if an attribute is too long, in an envelope that was not decoded but made by hand."""
    attributes = msgspec.structs.asdict(envelope)
    try:
        msgspec.convert(attributes, Envelope)
    except msgspec.ValidationError as error:
        raise_explained(attributes, error)
    if envelope.extensions is not None:
        check_extensions(envelope.extensions)


def check_extensions(extensions: Mapping[str, str]) -> None:
    """Raise DecodeError if there are too many unknown extensions, or they are too long together."""
    if len(extensions) > MAX_EXTENSIONS:
        raise DecodeError(f"the event has {len(extensions):,} extensions; at most {MAX_EXTENSIONS} are taken.")
    size = sum(len(name) + len(value.encode(errors="replace")) for name, value in extensions.items())
    if size > MAX_EXTENSION_BYTES:
        raise DecodeError(
            f"the extensions of the event have {size:,} bytes; at most {MAX_EXTENSION_BYTES:,} are taken, "
            "so put large values into the data."
        )
