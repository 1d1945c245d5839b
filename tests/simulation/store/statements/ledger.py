"""Queries on the ledger."""

from __future__ import annotations

from typing import Any

import asyncpg

from headrace import sql
from tests.simulation.store.statements.model import Work, reads, writes
from tests.simulation.store.tables import Row
from tests.simulation.store.transaction import Transaction

COLUMNS = [
    "subscription",
    "topic",
    "partition",
    "sequence",
    "kind",
    "epoch",
    "first_offset",
    "next_offset",
    "applied",
    "skipped",
    "parked",
    "dead",
    "ids",
    "marks",
    "emits",
]


@writes(sql.ledger.INSERT, "INSERT 0")
def insert(t: Transaction, *values: Any) -> Work:
    row = dict(zip(COLUMNS, values, strict=True)) | {"committed_at": t.now()}
    key = (row["subscription"], row["topic"], row["partition"], row["sequence"], row["committed_at"])
    yield ("ledger", key)
    if t.get("ledger", key) is not None:
        raise asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
    t.put("ledger", key, row)
    return 1


@reads(sql.ledger.NEWEST_IDS)
def newest_ids(t: Transaction, group: str, topic: str, number: int, before: int, limit: int) -> list[Row]:
    rows = [row for row in t.group("ledger", group, topic, number) if row["sequence"] < before and row["ids"]]
    rows.sort(key=lambda row: -row["sequence"])
    return [
        Row(sequence=row["sequence"], ids=row["ids"], marks=row["marks"], at=row["committed_at"])
        for row in rows[:limit]
    ]


@reads(sql.ledger.UNPUBLISHED_EMITS)
def unpublished_emits(t: Transaction, group: str, topic: str, number: int, after: int) -> list[Row]:
    rows = [
        row for row in t.group("ledger", group, topic, number) if row["sequence"] > after and row["emits"] is not None
    ]
    rows.sort(key=lambda row: row["sequence"])
    return [Row(sequence=row["sequence"], emits=row["emits"]) for row in rows[:100]]
