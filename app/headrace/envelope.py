"""The CloudEvents 1.0 attributes of one event, and what follows from them: identity and key."""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]

EXTENSIONS = ("partitionkey", "sequence", "traceparent", "tracestate", "correlationid", "causationid")
"""The extension attributes that the platform itself reads."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The attributes of one CloudEvents 1.0 event, without its data.

    `time` is an aware datetime. `extensions` holds attributes that the platform does not know, as text; it is
    filled where the reader asks for it (`cloudevents.decode_record(..., extensions=True)`).
    Source: CloudEvents 1.0.2 specification, "Context attributes"; extensions "partitioning", "sequence",
    "distributed tracing".
    """

    id: Name
    source: Name
    type: Name
    specversion: Literal["1.0"] = "1.0"
    subject: Name | None = None
    time: Instant | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    partitionkey: str | None = None
    sequence: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    extensions: dict[str, str] | None = None

    @property
    def identity(self) -> bytes:
        """The 16 bytes that stand for (source, id) in the dedupe window."""
        return identity(self.source, self.id)


def identity(source: str, event_id: str) -> bytes:
    """Return 16 bytes for the pair (source, id): the source's length goes first, so that no two pairs join alike."""
    return hashlib.blake2b(_prefix(source) + event_id.encode(), digest_size=16).digest()


@lru_cache(maxsize=4_096)
def _prefix(source: str) -> bytes:
    head = source.encode()
    return b"%d:%b" % (len(head), head)
