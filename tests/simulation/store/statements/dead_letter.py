"""Queries on dead letters."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from headrace import sql
from tests.simulation.store.statements.model import Work, reads, writes
from tests.simulation.store.tables import Row, Values
from tests.simulation.store.transaction import Transaction

COLUMNS = [
    "topic",
    "offset",
    "timestamp",
    "key",
    "record_key",
    "value",
    "headers",
    "source",
    "event_id",
    "type",
    "reason",
    "error",
    "error_type",
    "handler",
    "attempts",
]


def _new(t: Transaction, group: str, partition: int, **values: Any) -> Values:
    return {
        "id": t.server.new_id(),
        "subscription": group,
        "partition": partition,
        "created_at": t.now(),
        "decision": None,
        "decided_at": None,
        "settled_at": None,
        "edited_value": None,
        "history": "[]",
        "handler": None,
        "attempts": 0,
    } | values


@writes(sql.dead_letter.INSERT, "INSERT 0")
def insert(t: Transaction, group: str, partition: int, *columns: list[Any]) -> Work:
    rows = [dict(zip(COLUMNS, values, strict=True)) for values in zip(*columns, strict=True)]
    for values in rows:
        before = _before(t, group, partition, values)
        row = _new(t, group, partition, **values)
        if before is not None:
            row["history"], row["edited_value"] = before["history"], before["edited_value"]
            if before["edited_value"] is not None:
                row["value"] = before["value"]
        yield ("dead_letter", (row["id"],))
        t.put("dead_letter", (row["id"],), row)
    return len(rows)


def _before(t: Transaction, group: str, partition: int, new: Values) -> Values | None:
    """Return the letter of which this one is the next failure, if there is one."""
    found = [
        letter
        for letter in t.group("dead_letter")
        if (letter["subscription"], letter["partition"], letter["topic"]) == (group, partition, new["topic"])
        and (letter["offset"], letter["timestamp"]) == (new["offset"], new["timestamp"])
        and letter["decision"] == "replay"
        and letter["settled_at"] is not None
        and (letter["value"] if letter["edited_value"] is None else letter["edited_value"]) == new["value"]
    ]
    return max(found, key=lambda letter: float(letter["settled_at"]), default=None)


@writes(sql.dead_letter.INSERT_REFUSED_EMIT, "INSERT 0")
def insert_refused_emit(
    t: Transaction,
    group: str,
    partition: int,
    topic: str,
    key: bytes,
    value: bytes,
    headers: bytes,
    source: str,
    event_id: str,
    type: str,
    error: str,
    error_type: str,
) -> Work:
    for letter in t.group("dead_letter"):
        if (letter["subscription"], letter["source"], letter["event_id"]) == (group, source, event_id) and (
            letter["reason"] == "emit_refused" and letter["decision"] is None
        ):
            return 0
    values = {
        "topic": topic,
        "offset": -1,
        "timestamp": int(t.now() * 1000),
        "key": key,
        "record_key": key,
        "value": value,
        "headers": headers,
        "source": source,
        "event_id": event_id,
        "type": type,
        "reason": "emit_refused",
        "error": error,
        "error_type": error_type,
    }
    row = _new(t, group, partition, **values)
    yield ("dead_letter", (row["id"],))
    t.put("dead_letter", (row["id"],), row)
    return 1


@reads(sql.dead_letter.WAITING_REPLAYS)
def waiting_replays(t: Transaction, group: str, numbers: list[int], most: int, most_bytes: int) -> list[Row]:
    names = [
        "id",
        "partition",
        "reason",
        "topic",
        "offset",
        "timestamp",
        "record_key",
        "value",
        "edited_value",
        "headers",
    ]
    found: list[Row] = []
    for number in sorted(set(numbers)):
        letters = [
            row
            for row in t.group("dead_letter")
            if row["subscription"] == group and row["partition"] == number and _is_waiting(row)
        ]
        letters.sort(key=lambda row: (row["topic"], row["offset"], row["id"]))
        size = 0
        for place, row in enumerate(letters[:most]):
            value = row["value"] if row["edited_value"] is None else row["edited_value"]
            size += len(value or b"") + len(row["headers"])
            if place == 0 or size <= most_bytes:
                found.append(Row(**{name: row[name] for name in names}))
    return found


def _is_waiting(row: Values) -> bool:
    return row["decision"] == "replay" and row["settled_at"] is None


@writes(sql.dead_letter.SETTLE_REPLAYS, "UPDATE")
def settle_replays(t: Transaction, ids: list[UUID]) -> Work:
    settled = []
    for id_ in sorted(set(ids)):
        row = yield from t.change("dead_letter", (id_,), _is_waiting, lambda row: {"settled_at": t.now()})
        if row is not None:
            settled.append(Row(id=id_))
    return settled


@writes(sql.dead_letter.REOPEN_REPLAYS, "UPDATE")
def reopen_replays(t: Transaction, ids: list[UUID], errors: list[str]) -> Work:
    changed = 0
    for id_, error in zip(ids, errors, strict=True):

        def reopen(row: Values, error: str = error) -> Values:
            did = {"did": "refuse", "by": "the owner of the partition", "at": t.now(), "why": error}
            history = json.dumps([*json.loads(row["history"]), did])
            return {"decision": None, "decided_at": None, "error": error, "history": history}

        row = yield from t.change("dead_letter", (id_,), _is_waiting, reopen)
        changed += row is not None
    return changed


@writes(sql.dead_letter.DECIDE, "UPDATE")
def decide(t: Transaction, id_: UUID, decision: str, service: str | None, by: str, why: str) -> Work:
    def is_open(row: Values) -> bool:
        return row["decision"] is None and (service is None or row["subscription"].startswith(f"{service}."))

    def change(row: Values) -> Values:
        did = {"did": decision, "by": by, "at": t.now(), "why": why}
        return {
            "decision": decision,
            "decided_at": t.now(),
            "history": json.dumps([*json.loads(row["history"]), did]),
        }

    row = yield from t.change("dead_letter", (id_,), is_open, change)
    names = ["subscription", "topic", "partition", "offset", "reason", "event_id", "source"]
    return [] if row is None else [Row(**{name: row[name] for name in names})]


@reads(sql.dead_letter.COUNT_OPEN_BY_REASON)
def count_open_by_reason(t: Transaction, group: str, numbers: list[int]) -> list[Row]:
    counts: dict[str, int] = {}
    for row in t.group("dead_letter"):
        if row["subscription"] == group and row["decision"] is None and row["partition"] in numbers:
            counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    return [Row(reason=reason, open=count) for reason, count in sorted(counts.items())]
