"""Compares emitted events by id: those of a rehearsal, and those that the ledger keeps."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from headrace import sql
from headrace.cloudevents import decode_record
from headrace.database.pool import Connection
from headrace.ledger.rows import Kind, unpack_emits
from headrace.log.ports import NewRecord, TopicPartition
from headrace.rewind.difference import Emits
from headrace.rewind.plan import Move


class Emitted:
    """The emitted events of one partition, each as a number of 32 bits by its id."""

    def __init__(self, move: Move, known_from: int) -> None:
        """`known_from` is the first offset whose emits the ledger still has."""
        self._place = move.place
        self._since = max(move.offset, known_from)
        self._made: dict[str, int] = {}

    def add(self, offset: int, record: NewRecord) -> None:
        """Take in what the handler of the event at an offset has emitted."""
        if offset >= self._since:
            id, mark = _marked(record)
            self._made[id] = mark

    async def compare(self, connection: Connection, group: str) -> Emits:
        """Compare with what the ledger keeps."""
        kept: dict[str, int] = {}
        expected: set[str] = set()
        sequence = 0
        while rows := await connection.fetch(sql.ledger.EMITS_OF_BATCHES, group, *self._place, sequence, self._since):
            for row in rows:
                marked = dict(map(_marked, unpack_emits(row["emits"])))
                kept |= marked
                if row["kind"] == Kind.BATCH and row["first_offset"] >= self._since:
                    expected |= marked.keys()
            sequence = rows[-1]["sequence"]
        both = kept.keys() & self._made.keys()
        changed = sum(kept[id] != self._made[id] for id in both)
        return Emits(len(both), changed, len(self._made) - len(both), len(expected - self._made.keys()))


async def known_from(connection: Connection, group: str) -> dict[TopicPartition, int]:
    """Return the first offset of each partition whose batch the ledger still has."""
    return {
        TopicPartition(row["topic"], row["partition"]): row["first_offset"]
        for row in await connection.fetch(sql.ledger.FIRST_ROWS, group)
    }


def total(found: Iterable[Emits]) -> Emits:
    """Return the sums."""
    return Emits(*map(sum, zip(*[Emits(), *found], strict=True)))


def _marked(record: NewRecord) -> tuple[str, int]:
    envelope, data = decode_record(record)
    place = f"{record.topic}\0{envelope.type}\0".encode() + (record.key or b"")
    return envelope.id, crc32(data, crc32(place))
