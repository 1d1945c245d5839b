"""Reads the embedded log by offset, and waits in memory for the writer of the same process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from headrace import sql
from headrace.database.pool import Pool
from headrace.errors import HeadraceError, TransportError
from headrace.log.embedded_session import unavailable
from headrace.log.local import Wakeups, take_turns
from headrace.log.ports import Bounds, Record, StoredRecord, TopicPartition
from headrace.log.refusals import out_of_range
from headrace.log.sizes import leading
from headrace.log.stored import unpack_headers


class _Bounded(Protocol):
    def bounds(self, partitions: Sequence[TopicPartition]) -> Awaitable[dict[TopicPartition, Bounds]]: ...


class EmbeddedReader:
    """Asks Postgres only if the writer has said that there is something to read."""

    def __init__(
        self,
        log: _Bounded,
        pool: Pool,
        positions: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        wakeups: Wakeups,
    ) -> None:
        self._log = log
        self._pool = pool
        self._positions = dict(positions)
        self._ends = ends
        self._wakeups = wakeups
        self._bell = wakeups.listen(list(positions))

    async def fetch(
        self, max_records: int, max_bytes: int, timeout_seconds: float
    ) -> dict[TopicPartition, list[Record]]:
        """Return the next records; see the port."""
        self._bell.clear()
        found = await self._read(max_records, max_bytes)
        if not found:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._bell.wait()
                    self._bell.clear()
                found = await self._read(max_records, max_bytes)
        return found

    def position(self, partition: TopicPartition) -> int:
        """Return the offset that the next fetch starts at."""
        return self._positions[partition]

    async def close(self) -> None:
        """Stop being woken. Never raises."""
        self._wakeups.forget(self._bell)

    async def _read(self, max_records: int, max_bytes: int) -> dict[TopicPartition, list[Record]]:
        found: dict[TopicPartition, list[Record]] = {}
        for partition, offset in self._positions.items():
            if offset == self._ends[partition] or max_records <= 0:
                continue
            with unavailable():
                rows = await self._pool.fetch(
                    sql.log.READ, partition.topic, partition.partition, offset, max_records, max_bytes, not found
                )
            if not rows and found:
                break  # the next record does not fit any more
            if not rows or rows[0]["offset"] != offset:
                raise await self._out_of_range(partition, offset)
            records: list[Record] = [
                StoredRecord(partition.topic, partition.partition, at, timestamp, key, value, unpack_headers(headers))
                for at, timestamp, key, value, headers in rows
            ]
            count, size = leading(records, max_records, max_bytes)
            if found and size > max_bytes:
                break
            found[partition] = records[:count]
            self._positions[partition] = records[count - 1].offset + 1
            max_records -= count
            max_bytes -= size
        take_turns(self._positions, found)
        return found

    async def _out_of_range(self, partition: TopicPartition, offset: int) -> HeadraceError:
        bounds = await self._log.bounds([partition])
        return out_of_range(partition, offset, bounds[partition]) or TransportError(
            f"{partition.topic}[{partition.partition}] has no record at offset {offset} yet: read again."
        )
