"""The rows of the ledger: written with a batch, read by the next owner of its partition."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec

from headrace import sql
from headrace.database.pool import Connection
from headrace.log.ports import NewRecord, TopicPartition

IDENTITY_BYTES = 16


class Kind(IntEnum):
    """What a batch took in."""

    BATCH = 0
    """Records of the log."""
    RETRY = 1
    """Parked events of one or more lanes."""
    REPLAY = 2
    """Dead letters that a person asked to replay."""
    MOVE = 3
    """Nothing: a person moved the claim to `next_offset`, or made it there. Rows before it may be of another log."""
    TIMER = 4
    """Timers that were due: their events are its emits."""
    EFFECT = 5
    """Effects that are done, or have failed: the events that they return are its emits."""


class Row(NamedTuple):
    """One row, without the claim that it belongs to. `ids` and `marks` are packed."""

    sequence: int
    kind: Kind
    epoch: int
    first_offset: int
    next_offset: int
    applied: int
    skipped: int
    parked: int
    dead: int
    ids: bytes
    marks: bytes
    emits: bytes | None


def move(sequence: int, epoch: int, first_offset: int, next_offset: int) -> Row:
    """Return the row of a claim that a person moved from one offset to another."""
    return Row(sequence, Kind.MOVE, epoch, first_offset, next_offset, 0, 0, 0, 0, b"", b"", None)


async def insert_row(connection: Connection, group: str, partition: TopicPartition, row: Row) -> None:
    """Write the row inside the caller's transaction."""
    await connection.execute(sql.ledger.INSERT, group, *partition, *row)


async def read_unmarked(
    connection: Connection, group: str, partition: TopicPartition, after: int
) -> list[tuple[int, list[NewRecord]]]:
    """Return (sequence, emitted records) of the oldest rows behind `after`; empty when there are none."""
    rows = await connection.fetch(sql.ledger.UNPUBLISHED_EMITS, group, *partition, after)
    return [(row["sequence"], unpack_emits(row["emits"])) for row in rows]


def pack_emits(records: Sequence[NewRecord]) -> bytes | None:
    """Return the records as the ledger keeps them; None when there are none."""
    return _encode_emits(records) if records else None


def pack_marks(marks: Sequence[int]) -> bytes:
    """Return all offsets (8 bytes each), then all CRCs (4 bytes each), little-endian."""
    offsets = array("q", [mark >> 32 for mark in marks])
    sums = array("I", [mark & 0xFFFF_FFFF for mark in marks])
    return _little_endian(offsets).tobytes() + _little_endian(sums).tobytes()


def unpack_marks(packed: bytes | None, count: int) -> list[int]:
    """Return `count` marks; -1 each when the row was written before there were marks."""
    if packed is None:
        return [-1] * count
    halves, sums = array("I", packed[: 8 * count]), array("I", packed[8 * count :])
    if sys.byteorder == "little" and halves[1::2].count(0) == count:  # offsets below four billion: a third of the time
        words = array("I", [0]) * (2 * count)
        words[::2], words[1::2] = sums, halves[::2]
        return array("Q", words.tobytes()).tolist()
    offsets = array("q", packed[: 8 * count])
    return [offset << 32 | sum_ for offset, sum_ in zip(_little_endian(offsets), _little_endian(sums), strict=True)]


def stale_mark(mark: int) -> int:
    """Return the mark of an event that was skipped as stale: of an offset below -1, which stands for none."""
    return -2 - (mark >> 32) << 32 | mark & 0xFFFF_FFFF


def is_stale(offset: int) -> bool:
    """True if the offset of a mark is that of an event that was skipped as stale."""
    return offset < -1


def true_offset(offset: int) -> int:
    """Return the offset that the event of a mark's offset has; -1 if it is not known."""
    return -2 - offset if is_stale(offset) else offset


def _little_endian(values: array[int]) -> array[int]:
    if sys.byteorder == "big":
        values.byteswap()
    return values


_encode_emits = msgspec.msgpack.Encoder().encode
unpack_emits = msgspec.msgpack.Decoder(list[NewRecord]).decode
"""Return the records that the ledger keeps in a row's `emits`."""
