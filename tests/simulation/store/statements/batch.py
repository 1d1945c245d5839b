"""The query that commits several batches."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from headrace import sql
from tests.simulation.store.statements.claim import advance
from tests.simulation.store.statements.ledger import insert
from tests.simulation.store.statements.model import Work, writes
from tests.simulation.store.statements.state import write
from tests.simulation.store.transaction import Transaction

SEPARATOR = "\x1f"


class Written(msgspec.Struct):
    """A state as the query takes it."""

    batch: int
    state: str
    key: str
    version: int
    data: msgspec.Raw
    ttl: timedelta | None
    class_version: int


@writes(sql.batch.COMMIT, "SELECT")
def commit(
    t: Transaction,
    batches: str,
    ids: list[bytes],
    marks: list[bytes],
    emits: list[bytes | None],
    states: str,
    batch_count: int,
    state_count: int,
    lock_milliseconds: str,
) -> Work:
    told, moved, written = json.loads(batches), 0, 0
    rows = msgspec.json.decode(states, type=list[Written])
    rows.sort(key=lambda row: (told[row.batch]["subscription"], row.state, row.key))
    if len({(told[row.batch]["subscription"], row.state, row.key) for row in rows}) < len(rows):
        raise asyncpg.CardinalityViolationError("ON CONFLICT DO UPDATE command cannot affect row a second time")
    for row in rows:
        group, number = told[row.batch]["subscription"], told[row.batch]["partition"]
        columns = (SEPARATOR + row.key, str(row.version), SEPARATOR + bytes(row.data).decode(), SEPARATOR)
        written += yield from write(t, group, row.state, number, *columns, row.ttl, row.class_version)
    for each in told:
        after = [each[name] for name in ("next_offset", "sequence", "emitted_through")]
        last = [each[name] for name in ("last_offset", "last_timestamp", "last_crc")]
        held = (each["epoch"], UUID(each["token"]), each["held_offset"])
        moved += yield from advance(t, *_place(each), *held, *after, *last, each["held_sequence"])
    if (written, moved) != (state_count, batch_count):
        raise asyncpg.DivisionByZeroError("division by zero")
    for number, each in enumerate(told):
        counts = [each[name] for name in ("applied", "skipped", "parked", "dead")]
        did = (each["sequence"], each["kind"], each["epoch"], each["held_offset"], each["next_offset"], *counts)
        yield from insert(t, *_place(each), *did, ids[number], marks[number], emits[number])
    return 1


def _place(each: dict[str, Any]) -> tuple[str, str, int]:
    return (each["subscription"], each["topic"], each["partition"])
