"""The query that commits several batches."""

from __future__ import annotations

import asyncpg
import msgspec

from headrace import sql
from headrace.engine.group_commit import SmallBatch, SmallState
from headrace.state.store import columns_of
from tests.simulation.store.statements.claim import advance
from tests.simulation.store.statements.ledger import insert
from tests.simulation.store.statements.model import Work, writes
from tests.simulation.store.statements.state import write
from tests.simulation.store.transaction import Transaction


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
    told, rows = msgspec.json.decode(batches, type=list[SmallBatch]), msgspec.json.decode(states, type=list[SmallState])
    moved = written = 0
    rows.sort(key=lambda row: (told[row.batch].subscription, row.state, row.key))
    if len({(told[row.batch].subscription, row.state, row.key) for row in rows}) < len(rows):
        raise asyncpg.CardinalityViolationError("ON CONFLICT DO UPDATE command cannot affect row a second time")
    for row in rows:
        group, number = told[row.batch].subscription, told[row.batch].partition
        columns = columns_of([(row.key, row.version, bytes(row.data))])
        written += yield from write(t, group, row.state, number, *columns, row.ttl, row.class_version)
    for each in told:
        held = (each.epoch, each.token, each.held_offset)
        after = (each.next_offset, each.sequence, each.emitted_through)
        last = (each.last_offset, each.last_timestamp, each.last_crc)
        moved += yield from advance(t, *_place(each), *held, *after, *last, each.held_sequence)
    if (written, moved) != (state_count, batch_count):
        raise asyncpg.DivisionByZeroError("division by zero")
    for number, each in enumerate(told):
        did = (each.sequence, each.kind, each.epoch, each.held_offset, each.next_offset)
        counts = (each.applied, each.skipped, each.parked, each.dead)
        yield from insert(t, *_place(each), *did, *counts, ids[number], marks[number], emits[number])
    return 1


def _place(each: SmallBatch) -> tuple[str, str, int]:
    return (each.subscription, each.topic, each.partition)
