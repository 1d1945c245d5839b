"""Asks the log about one event: when it was taken in, and whether it still waits to be read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime

from headrace.cloudevents import decode_record
from headrace.dead_letters.shown import moment
from headrace.errors import DecodeError, HeadraceError
from headrace.explain.fate import Fate
from headrace.explain.search import Asked
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Log, Record, TopicPartition, position_of
from headrace.log.sizes import size_bytes

FETCH_RECORDS, FETCH_BYTES, FETCH_SECONDS = 500, 4 * 2**20, 0.5
MOST_RECORDS, MOST_BYTES = 5_000, 64 * 2**20
"""Of the records that wait so many are looked through, until they had so many bytes."""


async def with_acceptance(log: Log, fates: Sequence[Fate]) -> list[Fate]:
    """Return the fates with the time at which the log took the event in, where it still has it. Never raises."""
    return [fate._replace(accepted_at=await _accepted_at(log, fate)) for fate in fates]


async def _accepted_at(log: Log, fate: Fate) -> datetime | None:
    if fate.topic is None or fate.partition is None or fate.offset is None:
        return None
    place = TopicPartition(fate.topic, fate.partition)
    try:
        async with aclosing(_read(log, {place: fate.offset}, 1)) as records:
            async for record in records:
                if record.offset == fate.offset:
                    return moment(record.timestamp)
    except HeadraceError:
        return None
    return None


async def find_pending(
    log: Log, subscription: Subscription, claims: Mapping[TopicPartition, int], asked: Asked
) -> Fate | None:
    """Return the event's fate if it is among the next records of the claims; None if not. Raises: TransportError."""
    bounds = await log.bounds(list(claims)) if claims else {}
    positions = {
        place: max(offset, bounds[place].begin)
        for place, offset in claims.items()
        if place in bounds and offset < bounds[place].end
    }
    if not positions:
        return None
    async with aclosing(_read(log, positions, MOST_RECORDS)) as records:
        async for record in records:
            named = _source_and_type(record, asked)
            if named is None or (asked.source or named[0], asked.type or named[1]) != named:
                continue
            if named[1] is not None and named[1] not in subscription.event_types:
                continue
            before = record.offset - positions[TopicPartition(record.topic, record.partition)]
            detail = f"it waits in the log, with {before} records of its partition before it."
            place, (source, type_) = position_of(record), named
            return Fate(subscription.name, "pending", detail, source, type_, *place, None, moment(record.timestamp))
    return None


def _source_and_type(record: Record, asked: Asked) -> tuple[str, str | None] | None:
    """Return what the event of a record is called if it has the id that is asked for; a decoder may give its type."""
    if asked.id == f"{record.partition}/{record.offset}/{record.timestamp}":
        return f"/topics/{record.topic}", asked.type
    try:
        envelope, _ = decode_record(record)
    except DecodeError:
        return None
    return (envelope.source, envelope.type) if envelope.id == asked.id else None


async def _read(log: Log, positions: Mapping[TopicPartition, int], most: int) -> AsyncGenerator[Record, None]:
    """Yield at most so many records from the positions on; fewer if they are large, or none comes for half a second.

    Those of one fetch are kept at a time.
    """
    reader = await log.reader(positions)
    count = size = 0
    try:
        while count < most and size < MOST_BYTES:
            fetched = await reader.fetch(min(FETCH_RECORDS, most - count), FETCH_BYTES, FETCH_SECONDS)
            if not fetched:
                break
            for records in fetched.values():
                count += len(records)
                size += sum(map(size_bytes, records))
                for record in records:
                    yield record
    finally:
        await reader.close()
