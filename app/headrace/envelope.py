"""The CloudEvents 1.0 attributes of one event, and what follows from them: identity and key."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Literal

import msgspec

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]
Source = Annotated[str, msgspec.Meta(min_length=1, max_length=2_048)]
Type = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Subject = Annotated[str, msgspec.Meta(min_length=1, max_length=2_048)]
Text = Annotated[str, msgspec.Meta(max_length=2_048)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]

CACHED_PREFIXES, CACHED_CHARACTERS = 1_024, 200
"""Longer sources and types are not cached: a producer chooses them, and the cache may grow to 2 MB at most."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False, eq=False, omit_defaults=True):
    """The attributes of one CloudEvents 1.0 event, without its data.

    Decoders check the lengths that the types name; `cloudevents.check_lengths` does for an envelope made by hand.
    `time` is an aware datetime. `extensions` holds the attributes that the platform does not know, as text. It is
    filled only if the reader asks for it (`cloudevents.decode_record(..., extensions=True)`).
    Source: CloudEvents 1.0.2 specification, "Context attributes"; extensions "partitioning", "sequence",
    "distributed tracing".
    """

    id: Id
    source: Source
    type: Type
    specversion: Literal["1.0"] = "1.0"
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
    extensions: dict[str, str] | None = None

    def __eq__(self, other: object) -> bool:
        """Compare the attributes; a subclass may have more fields."""
        if not isinstance(other, Envelope):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in Envelope.__struct_fields__)

    __hash__ = None  # type: ignore[assignment]

    @property
    def identity(self) -> bytes:
        """The 16 bytes that stand for (source, type, id) in the dedupe window."""
        return identity(self.source, self.type, self.id)


def identity(source: str, type: str, event_id: str) -> bytes:
    """Return 16 bytes for the triple (source, type, id): equal triples, and only those, have equal bytes.

    The lengths of source and type go before them, so that no two triples join to the same text. What comes before the
    id is hashed once: to copy such a hash costs a fifth of beginning one.
    """
    begun = (_begun.get((source, type)) or _begin(source, type)).copy()
    begun.update(event_id.encode())
    return begun.digest()


def _begin(source: str, type: str) -> blake2b:
    first, second = source.encode(), type.encode()
    begun = blake2b(b"%d:%b%d:%b" % (len(first), first, len(second), second), digest_size=16)
    if len(source) + len(type) <= CACHED_CHARACTERS:
        if len(_begun) >= CACHED_PREFIXES:
            _begun.clear()
        _begun[source, type] = begun
    return begun


_begun: dict[tuple[str, str], blake2b] = {}
