"""The dedupe window: the identities of the events that a partition has seen, the newest last."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from struct import iter_unpack
from typing import TypeAlias

from headrace import sql
from headrace.database.pool import Connection
from headrace.ledger.packed_marks import PackedMarks
from headrace.ledger.rows import IDENTITY_BYTES, unpack_marks
from headrace.log.ports import TopicPartition

FEW_ROWS, MANY_ROWS = 50, 5_000
"""Rows read at a time: few while they are large, many when they are small."""

PLAIN_IDS = 200_000
"""A window of more ids is packed: a fifth of the memory, for 0.5 to 0.9 µs more an event. This is the default size."""


class DedupeWindow:
    """The identities of the last `limit` events or some more, since whole batches or segments enter and leave.

    An identity takes about 200 bytes of memory, half of them the dictionary's room to spare; of a window of more than
    `PLAIN_IDS`, 40 to 50 (`python -m bench.window`). A new owner loads the window from the ledger, so it knows what the
    previous owner knew.
    """

    def __init__(self, limit: int, expected: int = 0) -> None:
        """Make a window that will hold at least `expected` ids at once."""
        self._limit = limit
        self._batches: deque[tuple[float, Sequence[bytes]]] = deque()
        self._plain: dict[bytes, int] = {}
        self._packed = PackedMarks(limit, expected) if limit > PLAIN_IDS else None
        self.marks: Mapping[bytes, int] = self._plain if self._packed is None else self._packed
        """By identity: the event's offset and, in the lowest 32 bits, the CRC-32 of its data."""

    def __len__(self) -> int:
        return len(self.marks)

    @property
    def since(self) -> float | None:
        """When the oldest batch in the window was committed, in Unix seconds; None for an empty window."""
        if self._packed is not None:
            return self._packed.since
        return self._batches[0][0] if self._batches else None

    def add(self, identities: Sequence[bytes], marks: Sequence[int], at: float) -> None:
        """Add the identities of a batch committed `at` (Unix seconds), and drop the oldest over the limit."""
        if not identities:
            return
        if self._packed is not None:
            self._packed.add(identities, marks, at)
            return
        known = self._plain
        self._batches.append((at, identities))
        known.update(zip(identities, marks, strict=True))
        while len(known) - len(self._batches[0][1]) >= self._limit and len(self._batches) > 1:
            for identity in self._batches.popleft()[1]:
                known.pop(identity, None)

    def add_packed(self, ids: bytes, marks: bytes | None, at: float) -> None:
        """Add the identities of one ledger row."""
        identities = [identity for (identity,) in iter_unpack(f"{IDENTITY_BYTES}s", ids)]
        self.add(identities, unpack_marks(marks, len(identities)), at)


PackedRows: TypeAlias = "list[tuple[bytes, bytes | None, float]]"
"""(ids, marks, time of the commit in Unix seconds) of ledger rows, the newest first."""


async def read_window(
    connection: Connection, group: str, partition: TopicPartition, sequence: int, limit: int
) -> PackedRows:
    """Return the newest ledger rows up to `sequence` that together hold `limit` ids, or all that there are.

    If a person has rewound the claim, rows before that do not count: their events are applied again.
    """
    since = await connection.fetchval(sql.claim_move.WINDOW_FROM, group, *partition)
    packed: PackedRows = []
    wanted, before, rows_wanted = limit * IDENTITY_BYTES, sequence + 1, FEW_ROWS
    while wanted > 0:
        rows = await connection.fetch(sql.ledger.NEWEST_IDS, group, *partition, before, rows_wanted)
        packed += [(row["ids"], row["marks"], row["at"]) for row in rows if row["sequence"] >= since]
        if len(rows) < rows_wanted or rows[-1]["sequence"] < since:
            break
        size = sum(len(row["ids"]) for row in rows)
        wanted, before = wanted - size, rows[-1]["sequence"]
        rows_wanted = min(MANY_ROWS, max(FEW_ROWS, wanted * len(rows) // size + 1))
    return packed


def window_of(packed: PackedRows, limit: int) -> DedupeWindow:
    """Return the window that the rows make. No I/O: a large one takes tens of milliseconds, so call it off the loop."""
    window = DedupeWindow(limit, sum([len(ids) for ids, _, _ in packed]) // IDENTITY_BYTES)
    for ids, marks, at in reversed(packed):
        window.add_packed(ids, marks, at)
    return window
