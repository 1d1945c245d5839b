"""Finds the offset of a time: that of the first record which the log took in at the time or later."""

from __future__ import annotations

from datetime import datetime

from headrace.log.ports import Bounds, Log, Record, TopicPartition

FETCH_BYTES, FETCH_SECONDS = 2**20, 1.0


async def offset_at(log: Log, place: TopicPartition, bounds: Bounds, at: datetime) -> int:
    """Return the offset by halving, since the times of a log hardly ever go back; its end if all are earlier.

    Raises: TransportError.
    """
    wanted = at.timestamp() * 1000
    low, high = bounds.begin, bounds.end
    while low < high:
        middle = (low + high) // 2
        record = await _first_from(log, place, middle)
        if record is None or record.offset >= high or record.timestamp >= wanted:
            high = middle
        else:
            low = record.offset + 1
    return low


async def _first_from(log: Log, place: TopicPartition, offset: int) -> Record | None:
    """Return the first record from the offset on; None if there is none before the log's end."""
    reader = await log.reader({place: offset})
    try:
        records = (await reader.fetch(1, FETCH_BYTES, FETCH_SECONDS)).get(place)
    finally:
        await reader.close()
    return records[0] if records else None
