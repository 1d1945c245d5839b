"""How a record is kept in a table: its headers as MessagePack, its text without what Postgres cannot hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from headrace.errors import ConfigurationError
from headrace.log.ports import NewRecord, StoredRecord

Headers = tuple[tuple[str, bytes | None], ...]
"""Names and values, in the record's order; Kafka knows null values."""
NAME_CHARACTERS = 200
"""Of a name that a team gives to something in a table."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Headers).decode


def pack_headers(headers: Iterable[tuple[str, bytes | None]]) -> bytes:
    """Return the headers as the tables keep them. Never raises: a name that is no Unicode text is replaced."""
    return _encode([(plain(name, len(name)), value) for name, value in headers])


def unpack_headers(packed: bytes) -> Headers:
    """Return the headers of a row."""
    return _decode(packed)


def stored_record(row: Any, partition: int) -> StoredRecord:
    """Return the record that a row of `parked` or `dead_letter` keeps."""
    return StoredRecord(
        topic=row["topic"],
        partition=partition,
        offset=row["offset"],
        timestamp=row["timestamp"],
        key=row["record_key"],
        value=row["value"],
        headers=unpack_headers(row["headers"]),
    )


def new_record(topic: str, key: bytes | None, value: bytes | None, headers: bytes) -> NewRecord:
    """Return the record that a row lets be published; `headers` as the table keeps them."""
    return NewRecord(topic, key, value, [(name, value or b"") for name, value in unpack_headers(headers)])


def check_name(name: object, what: str) -> None:
    """Raise ConfigurationError if Postgres cannot hold the name of a timer, a step and so on."""
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARACTERS or plain(name) != name:
        raise ConfigurationError(
            f"a {what}'s name has 1 to {NAME_CHARACTERS} characters of Unicode, without NUL, and {name!r} has not."
        )


def plain(text: str, limit: int = 2_000) -> str:
    """Return the text as Postgres can hold it: no NUL, no lone surrogate, at most `limit` characters."""
    return text[:limit].replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
