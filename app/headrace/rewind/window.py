"""What a claim that goes back still knows: the ids of events before the place, and of those that a person discarded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from headrace import sql
from headrace.cloudevents import decode_record
from headrace.database.pool import Connection
from headrace.envelope import identity
from headrace.errors import ConfigurationError, DecodeError
from headrace.ledger.rows import IDENTITY_BYTES, Kind, Row, insert_row, pack_marks, true_offset, unpack_marks
from headrace.log.ports import StoredRecord, TopicPartition
from headrace.log.stored import unpack_headers
from headrace.rewind.plan import Move

PAGE_ROWS, ROW_IDS = 200, 50_000
"""Ledger rows that are read at a time, and ids that are written in one."""

Known = tuple[bytes, int]
"""An identity and its mark."""


async def known_before(
    connection: Connection, group: str, place: TopicPartition, offset: int, sequence: int, limit: int
) -> list[Known]:
    """Return the newest ids, the oldest first, of the events before the offset that the claim knows."""
    since = await connection.fetchval(sql.claim_move.WINDOW_FROM, group, *place)
    known: list[Known] = []
    before = sequence + 1
    while len(known) < limit:
        rows = await connection.fetch(sql.ledger.NEWEST_IDS, group, *place, before, PAGE_ROWS)
        known += await asyncio.to_thread(_before, [row for row in rows if row["sequence"] >= since], offset)
        if len(rows) < PAGE_ROWS or rows[-1]["sequence"] < since:
            break
        before = rows[-1]["sequence"]
    return known[limit - 1 :: -1] if len(known) > limit else known[::-1]


def discarded(letters: Sequence[Any], move: Move, limit: int) -> list[Known]:
    """Return the ids of what was discarded: in the window, so that it is skipped when it is read again.

    Raises: ConfigurationError (more events come before one than a window of the limit holds, or it cannot be told).
    """
    found = [row for row in letters if row["decision"] == "discard" and row["event_id"] is not None]
    farthest = max((row["offset"] for row in found), default=move.offset)
    if farthest - move.offset >= limit:
        raise ConfigurationError(
            f"the event at {move.place.topic}/{move.place.partition}/{farthest} was discarded, and would be applied "
            f"again, since the dedupe window forgets it on the way; nothing was changed: go back to offset "
            f"{farthest - limit + 1} or later, or set HEADRACE_ENGINE_DEDUPE_WINDOW_IDS above "
            f"{farthest - move.offset} here and for the workers."
        )
    return [(_identity(row, move), -1) for row in found]


def _identity(row: Any, move: Move) -> bytes:
    """Return who the event of a letter is. Raises: ConfigurationError (only its record tells, and it has expired)."""
    if row["headers"] is None:
        return identity(row["source"], row["type"], row["event_id"])
    topic, partition = move.place
    record = StoredRecord(topic, partition, row["offset"], 0, None, row["value"], unpack_headers(row["headers"]))
    try:
        return decode_record(record)[0].identity
    except DecodeError as error:
        raise ConfigurationError(
            f"the event at {topic}/{partition}/{row['offset']} was discarded, and would be applied again, since its "
            "letter has expired and its name is too long or has a character that no database holds; nothing was "
            f"changed: go back to offset {row['offset'] + 1} or later."
        ) from error


async def write_known(
    connection: Connection, group: str, place: TopicPartition, offset: int, sequence: int, known: Sequence[Known]
) -> None:
    """Write the ids into ledger rows from a sequence number on: of epoch 0, as batches that did nothing else."""
    for number, at in enumerate(range(0, len(known), ROW_IDS)):
        ids, marks = zip(*known[at : at + ROW_IDS], strict=True)
        row = Row(sequence + number, Kind.BATCH, 0, offset, offset, 0, 0, 0, 0, b"".join(ids), pack_marks(marks), None)
        await insert_row(connection, group, place, row)


def rows_of(known: Sequence[Known]) -> int:
    """Return how many ledger rows the ids take."""
    return -(-len(known) // ROW_IDS)


def _before(rows: Sequence[Any], offset: int) -> list[Known]:
    """Return the ids of events before the offset, the newest first, of rows that come so."""
    return [each for row in rows for each in reversed(_unpacked(row)) if true_offset(each[1] >> 32) < offset]


def _unpacked(row: Any) -> list[Known]:
    ids = row["ids"]
    identities = [ids[at : at + IDENTITY_BYTES] for at in range(0, len(ids), IDENTITY_BYTES)]
    return list(zip(identities, unpack_marks(row["marks"], len(identities)), strict=True))
