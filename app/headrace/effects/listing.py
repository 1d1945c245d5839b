"""Calls that wait, as an operator sees them, and their retry; for the command line and for HTTP."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

from headrace import sql
from headrace.cloudevents import decode_record
from headrace.database.pool import Connection, Row
from headrace.errors import EventError
from headrace.log.stored import stored_record


class Filter(NamedTuple):
    """Which calls: of a subscription (its name, or in a database SERVICE.NAME), of a key, of those that have failed."""

    subscription: str
    key: str | None = None
    has_failed: bool = False


async def find(connection: Connection, wanted: Filter, limit: int) -> list[dict[str, Any]]:
    """Return calls by partition and number, JSON-ready."""
    key = wanted.key.encode() if wanted.key is not None else None
    rows = await connection.fetch(sql.effect.LIST, wanted.subscription, key, wanted.has_failed, limit)
    return [_shown(row) for row in rows]


async def retry(connection: Connection, wanted: Filter) -> int:
    """Let failed calls be made now; return how many there are."""
    key = wanted.key.encode() if wanted.key is not None else None
    count: int = await connection.fetchval(sql.effect.RETRY_NOW, wanted.subscription, key)
    return count


def _shown(row: Row) -> dict[str, Any]:
    record = stored_record(row, row["partition"])
    event_id = event_type = None
    with suppress(EventError):
        envelope, _ = decode_record(record)
        event_id, event_type = envelope.id, envelope.type
    return {
        "subscription": row["subscription"],
        "key": row["key"].decode(),
        "type": event_type,
        "event": event_id,
        "topic": row["topic"],
        "partition": row["partition"],
        "offset": row["offset"],
        "attempts": row["attempts"],
        "held": row["held"],
        "next_attempt_at": row["due_at"].isoformat() if row["due_at"] is not None else None,
        "started_at": row["started_at"].isoformat(),
        "error": row["error"],
    }
