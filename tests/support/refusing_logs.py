"""Memory logs that take no events, or only some, as long as a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace.errors import RecordTooLargeError, TransportError
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord, Position


class Dam(MemoryLog):
    """A memory log that takes no emits while it is closed, or takes them and says that it did not."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False
        self.swallows_answers = False
        self.refused = 0

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append, unless the records are emits and the dam is closed."""
        is_emit = any(record.topic.endswith("-echoes") for record in records)
        if is_emit and self.is_closed:
            self.refused += 1
            if self.swallows_answers:
                await super().publish(records)
            raise TransportError("the dam is closed.")
        return await super().publish(records)


class Moody(MemoryLog):
    """A log that refuses events as too large, or has one partition away, as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.too_large: set[int] = set()
        self.away: int | None = None
        self.hangs: asyncio.Event | None = None
        self.calls: list[int] = []

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append, unless a record is refused; `calls` tells how many records each call appended."""
        if self.hangs is not None:
            await self.hangs.wait()
        for record in records:
            if any(b'"number":%d}' % number in (record.value or b"") for number in self.too_large):
                raise RecordTooLargeError("Kafka refused an event for orders as too large.")
            if self.away == partition_for(record.key or b"", 3):
                raise TransportError("one partition has no leader.")
        self.calls.append(len(records))
        return await super().publish(records)
