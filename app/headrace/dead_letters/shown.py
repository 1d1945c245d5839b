"""How a dead letter looks to a person: the members of `GET /dead-letters`, which the command line prints as well."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from headrace.database.pool import Row
from headrace.log.stored import unpack_headers

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def summary(row: Row, subscription: str) -> dict[str, Any]:
    """Return what a list shows; `subscription` is the name that the caller knows it by.

    `key` and other bytes are text if they are UTF-8; otherwise `..._base64` holds them.
    """
    return {
        "id": row["id"],
        "subscription": subscription,
        "topic": row["topic"],
        "partition": row["partition"],
        "offset": row["offset"],
        "timestamp": moment(row["timestamp"]),
        "timestamp_milliseconds": row["timestamp"],
        **shown_bytes("key", row["key"]),
        "source": row["source"],
        "event_id": row["event_id"],
        "type": row["type"],
        "reason": row["reason"],
        "error": row["error"],
        "error_type": row["error_type"],
        "handler": row["handler"],
        "attempts": row["attempts"],
        "created_at": row["created_at"],
        "edited": row["is_edited"],
        "decision": row["decision"],
        "decided_at": row["decided_at"],
        "decided_by": row["decided_by"],
        "settled_at": row["settled_at"],
    }


def record(row: Row) -> dict[str, Any]:
    """Return what a single dead letter shows besides: the record as it was, what was made of it, and by whom."""
    headers = unpack_headers(row["headers"])
    return {
        **shown_bytes("record_key", row["record_key"]),
        **shown_bytes("value", row["value"]),
        "headers": [{"name": name, **shown_bytes("value", value)} for name, value in headers],
        **shown_bytes("edited_value", row["edited_value"]),
        "history": msgspec.json.decode(row["history"]),
    }


def group(row: Row, subscription: str) -> dict[str, Any]:
    """Return what is shown of a group of dead letters; `error` is the newest one's."""
    return {
        "subscription": subscription,
        **{name: row[name] for name in ("reason", "type", "handler", "error_type", "letters")},
        **{name: row[name] for name in ("first_at", "last_at", "error")},
    }


def moment(milliseconds: int) -> datetime | None:
    """Return the time of a record; None if no calendar has it, such as nanoseconds that a producer sent."""
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def shown_bytes(name: str, value: bytes | None) -> dict[str, str | None]:
    """Return bytes under their name as text, or as Base64 under `<name>_base64` if they are not UTF-8."""
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(value).decode()}
