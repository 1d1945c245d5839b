"""Reads the log up to targets, and knows where it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Self

from headrace.errors import TransportError
from headrace.log.ports import Log, Reader, Record, TopicPartition
from headrace.log.sizes import size_bytes

CHUNK_RECORDS, CHUNK_BYTES = 5_000, 8 * 2**20
"""What is fetched at a time."""
FETCH_SECONDS = 1.0
SILENT_SECONDS = 30.0
"""After so long without a record that has to be there, the log is taken to be away."""

Positions = dict[TopicPartition, int]


class LogReading:
    """Some partitions of the log, from positions on. No record behind a target is given out.

    A reader fetches every partition that it has, also those whose records nobody asks for. A fetch's worth of such
    records is kept for later targets; what is more is dropped, and its partition is read again when it is asked for.
    """

    def __init__(self, log: Log, reader: Reader, positions: Mapping[TopicPartition, int]) -> None:
        self._log = log
        self._reader = reader
        self._read = set(positions)
        """What the reader reads."""
        self._fetched: dict[TopicPartition, list[Record]] = {}
        self.positions: Positions = dict(positions)
        """The next offset of each partition."""

    @classmethod
    async def start(cls, log: Log, positions: Mapping[TopicPartition, int]) -> Self:
        """Begin at the positions. Raises: TransportError."""
        return cls(log, await log.reader(positions), positions)

    async def close(self) -> None:
        """Let the log go."""
        await self._reader.close()

    def behind(self, targets: Mapping[TopicPartition, int]) -> int:
        """Return how many offsets are missing to the targets."""
        return sum(max(0, target - self.positions[partition]) for partition, target in targets.items())

    async def take(self, targets: Mapping[TopicPartition, int]) -> dict[TopicPartition, list[Record]]:
        """Return records before the targets, and move the positions behind them; none if all are reached.

        Raises: TransportError (the log does not return them).
        """
        until = time.monotonic() + SILENT_SECONDS
        while True:
            taken: dict[TopicPartition, list[Record]] = {}
            for partition, target in targets.items():
                waiting = self._fetched.get(partition, [])
                number = next((n for n, each in enumerate(waiting) if each.offset >= target), len(waiting))
                if number:
                    taken[partition], self._fetched[partition] = waiting[:number], waiting[number:]
                before = self.positions[partition]
                if rest := self._fetched.get(partition):
                    self.positions[partition] = rest[0].offset
                elif partition in self._read:
                    self.positions[partition] = self._reader.position(partition)
                if self.positions[partition] > before:
                    until = time.monotonic() + SILENT_SECONDS
            if taken or not self.behind(targets):
                return taken
            if time.monotonic() > until:
                raise TransportError("the log does not return what the claims have behind them; see whether it is up.")
            await self._read_only({each for each, target in targets.items() if self.positions[each] < target})
            for partition, records in (await self._reader.fetch(CHUNK_RECORDS, CHUNK_BYTES, FETCH_SECONDS)).items():
                self._fetched.setdefault(partition, []).extend(records)

    async def _read_only(self, wanted: Iterable[TopicPartition]) -> None:
        """Let the reader have what is wanted, and nothing of which too much is kept already."""
        kept = {each for each in self._read if self._fetched.get(each)}
        records = [record for each in kept for record in self._fetched[each]]
        is_much = len(records) >= CHUNK_RECORDS or sum(map(size_bytes, records)) >= CHUNK_BYTES
        read = (self._read - kept if is_much else self._read).union(wanted)
        if read == self._read:
            return
        begins = {each: self._reader.position(each) if each in self._read else self.positions[each] for each in read}
        reader = await self._log.reader(begins)
        await self._reader.close()
        for each in self._read - read:
            self._fetched.pop(each, None)
        self._reader, self._read = reader, read
