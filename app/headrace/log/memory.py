"""The memory log: lists in this process, for tests and a first try. Nothing survives the process."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping, Sequence
from itertools import count

from headrace.log.local import LocalMembership, Wakeups, take_turns
from headrace.log.partitioner import partition_for
from headrace.log.ports import (
    AssignmentListener,
    Bounds,
    NewRecord,
    Position,
    Record,
    StoredRecord,
    TopicInfo,
    TopicPartition,
)
from headrace.log.refusals import check_topic_name, no_such_partition, no_such_topic, out_of_range
from headrace.log.sizes import leading


class MemoryLog:
    """Keeps records in lists whose index is the offset; stop() and start() keep them."""

    system = "memory"

    def __init__(self) -> None:
        self._log_id = f"memory:{secrets.token_hex(8)}"
        self._topics: dict[str, list[list[StoredRecord]]] = {}
        self._wakeups = Wakeups()
        self._spread = count()

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append the records and return their positions, all or none."""
        for record in records:
            if record.topic not in self._topics:
                raise no_such_topic(record.topic)
        return [self._append(record) for record in records]

    async def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """Return what exists of the named topics."""
        return {name: TopicInfo(name, len(self._topics[name]), self._log_id) for name in names if name in self._topics}

    async def create(self, topic: str, partitions: int) -> None:
        """Create the topic; nothing happens if it exists."""
        check_topic_name(topic, partitions)
        self._topics.setdefault(topic, [[] for _ in range(partitions)])

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Return 0 and the next offset of each partition."""
        return {p: Bounds(0, end, end) for p in partitions for end in [len(self._records(p))]}

    async def offset_at(self, partition: TopicPartition, milliseconds: int) -> int:
        """Return the offset of the first record of this time or later."""
        records = self._records(partition)
        return next((record.offset for record in records if record.timestamp >= milliseconds), len(records))

    async def reader(self, positions: Mapping[TopicPartition, int]) -> MemoryReader:
        """Return a reader that starts at the given offsets."""
        return MemoryReader({p: self._records(p) for p in positions}, positions, self._wakeups)

    def membership(
        self, group: str, topics: Sequence[str], listener: AssignmentListener, identity: str
    ) -> LocalMembership:
        """Return the only seat there is."""
        return LocalMembership(self, topics, listener)

    def wake(self) -> None:
        """Let every reader that waits for records return at once."""
        for topic, lists in self._topics.items():
            for number in range(len(lists)):
                self._wakeups.ring(TopicPartition(topic, number))

    def _records(self, partition: TopicPartition) -> list[StoredRecord]:
        if partition.topic not in self._topics:
            raise no_such_topic(partition.topic)
        try:
            return self._topics[partition.topic][partition.partition]
        except IndexError:
            raise no_such_partition(partition) from None

    def _append(self, record: NewRecord) -> Position:
        lists = self._topics[record.topic]
        number = next(self._spread) % len(lists) if record.key is None else partition_for(record.key, len(lists))
        offset = len(lists[number])
        lists[number].append(
            StoredRecord(
                topic=record.topic,
                partition=number,
                offset=offset,
                timestamp=time.time_ns() // 1_000_000,
                key=record.key,
                value=record.value,
                headers=tuple(record.headers),
            )
        )
        self._wakeups.ring(TopicPartition(record.topic, number))
        return Position(record.topic, number, offset)


class MemoryReader:
    """Reads the lists by index."""

    def __init__(
        self,
        records: dict[TopicPartition, list[StoredRecord]],
        positions: Mapping[TopicPartition, int],
        wakeups: Wakeups,
    ) -> None:
        self._records = records
        self._positions = dict(positions)
        self._wakeups = wakeups
        self._bell = wakeups.listen(list(positions))

    async def fetch(
        self, max_records: int, max_bytes: int, timeout_seconds: float
    ) -> dict[TopicPartition, list[Record]]:
        """Return the next records; see the port."""
        found = self._take(max_records, max_bytes)
        if not found:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._bell.wait()
            found = self._take(max_records, max_bytes)
        return found

    def position(self, partition: TopicPartition) -> int:
        """Return the offset that the next fetch starts at."""
        return self._positions[partition]

    async def close(self) -> None:
        """Stop being woken. Never raises."""
        self._wakeups.forget(self._bell)

    def _take(self, max_records: int, max_bytes: int) -> dict[TopicPartition, list[Record]]:
        self._bell.clear()
        found: dict[TopicPartition, list[Record]] = {}
        for partition, offset in self._positions.items():
            records = self._records[partition]
            if mismatch := out_of_range(partition, offset, Bounds(0, len(records), len(records))):
                raise mismatch
            count, size = leading(records[offset : offset + max_records], max_records, max_bytes)
            if count and (not found or size <= max_bytes):
                found[partition] = [*records[offset : offset + count]]
                self._positions[partition] = offset + count
                max_records -= count
                max_bytes -= size
        take_turns(self._positions, found)
        return found
