"""Applies the event store to a new table: what the projection has applied of it, and nothing that is on its way.

A stored event is published behind its commit, so at any moment some are in the outbox, and some in the log behind the
claims, and the log will bring those. So the claims are read first, then a snapshot of the store is taken. When what was
in the outbox then has left, every event of the snapshot is in the log: one that is not between the claims and the log's
end was applied before. What leaves the outbox is deleted from it, so no copy of it comes later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from headrace import sql
from headrace.cloudevents import decode_record
from headrace.database.pool import Connection
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError, DecodeError, TransportError
from headrace.item import Item
from headrace.log.ports import Log, Record, StoredRecord, TopicPartition
from headrace.outbox.transaction import group_of
from headrace.projections.projection import Projection
from headrace.publishing.checking import JSON, source_of
from headrace.rebuild.reading import FETCH_SECONDS, SILENT_SECONDS, Positions
from headrace.rebuild.replay import Replay
from headrace.registry import Registry
from headrace.store.stored import event_id, stored_event

PAGE_EVENTS = 5_000
LOOK_SECONDS = 0.05
FETCH_RECORDS, FETCH_BYTES = 5_000, 8 * 2**20

Identity = tuple[str, str, str]
"""Source, type and id."""


async def replay_store(
    connection: Connection,
    snapshot: Connection,
    log: Log,
    registry: Registry,
    projection: Projection,
    replay: Replay,
    table: str,
    tell: Callable[[int, int], Awaitable[None]],
) -> None:
    """Apply what is stored and was applied before the replay's positions; `snapshot` is another connection.

    Raises: ConfigurationError (an event that no class fits, a replayed letter that was edited), HandlerError.
    """
    service, types = registry.service, sorted(projection.event_types)
    async with snapshot.transaction(isolation="repeatable_read", readonly=True):
        total = await snapshot.fetchval(sql.stream_event.COUNT, service, types)
        # Twice: an event that the log refuses becomes a letter meanwhile, and one whose replay is taken up goes back.
        left_out = (await _given_up(connection, projection, service))[0]
        await _outbox_has_left(connection, service)
        given_up, edited = await _given_up(connection, projection, service)
        left_out |= given_up | await _in_log(log, replay.positions)
        last: tuple[str, str, int] = ("", "", 0)
        done = 0
        while rows := await snapshot.fetch(sql.stream_event.PAGE, service, types, *last, PAGE_EVENTS):
            async with connection.transaction():
                _apply(rows, registry, projection, replay, left_out, edited)
                await replay.write(connection, table)
            last = rows[-1]["stream"], rows[-1]["key"], rows[-1]["version"]
            done += len(rows)
            await tell(done, total)


def _apply(
    rows: Sequence[Any],
    registry: Registry,
    projection: Projection,
    replay: Replay,
    left_out: set[Identity],
    edited: set[Identity],
) -> None:
    for row in rows:
        envelope = _envelope(registry.service, row)
        identity = envelope.source, envelope.type, envelope.id
        if identity in left_out:
            continue
        if identity in edited:
            raise ConfigurationError(
                f"{envelope.id!r} was edited before its replay, which the event store does not know; build "
                f"{projection.name!r} from the log."
            )
        event_type = projection.event_types[row["type"]]
        stored = stored_event(projection.event_types, row["stream"], row["key"], row)
        record = StoredRecord(event_type.topic, -1, row["version"], 0, row["key"].encode(), None, ())
        item = Item(record, known_envelope=envelope, event_type=event_type, event=stored.event, key=row["key"])
        item.handler = projection.handlers[row["type"]]
        replay.handle(item, f"the stream {row['stream']!r} of {row['key']!r}, version {row['version']}")
        replay.events += 1


def _envelope(service: str, row: Mapping[str, Any]) -> Envelope:
    """Return the CloudEvent as which the event was published."""
    return Envelope(
        id=event_id(row["stream"], row["key"], row["version"]),
        source=source_of(service, row["type"]),
        type=row["type"],
        time=row["appended_at"],
        datacontenttype=JSON,
        partitionkey=row["key"],
        sequence=str(row["version"]),
        correlationid=row["correlation_id"],
        causationid=row["causation_id"],
    )


async def _given_up(
    connection: Connection, projection: Projection, service: str
) -> tuple[set[Identity], set[Identity]]:
    """Return what was given up on, by the projection or by the log, and what was edited before its replay."""
    found: set[Identity] = set()
    edited: set[Identity] = set()
    named = projection.group, group_of(service), sorted(projection.event_types)
    for row in await connection.fetch(sql.dead_letter.IDENTITIES, *named):
        identity = row["source"], row["type"], row["event_id"]
        found.discard(identity)
        if not row["is_replayed"]:
            found.add(identity)
        elif row["is_edited"]:
            edited.add(identity)
    return found, edited


async def _outbox_has_left(connection: Connection, service: str) -> None:
    """Return when the log has what the outbox holds now. Raises: TransportError (it does not leave)."""
    last, until = await connection.fetchval(sql.outbox.LAST_NUMBER, service), time.monotonic() + SILENT_SECONDS
    while last and await connection.fetchval(sql.outbox.WAITS_UP_TO, service, last):
        if time.monotonic() > until:
            raise TransportError("events of the outbox do not leave; see whether the log and the service are up.")
        await asyncio.sleep(LOOK_SECONDS)


async def _in_log(log: Log, positions: Positions) -> set[Identity]:
    """Return the events behind the positions, up to the end that the log has now."""
    bounds = await log.bounds(list(positions))
    ends = {each: bounds[each].end for each, position in positions.items() if bounds[each].end > position}
    found: set[Identity] = set()
    if not ends:
        return found
    reader = await log.reader({partition: positions[partition] for partition in ends})
    try:
        while any(reader.position(partition) < end for partition, end in ends.items()):
            fetched: Mapping[TopicPartition, list[Record]] = await reader.fetch(
                FETCH_RECORDS, FETCH_BYTES, FETCH_SECONDS
            )
            records = [record for each in fetched.values() for record in each]
            found |= {identity for record in records if (identity := _identity(record)) is not None}
    finally:
        await reader.close()
    return found


def _identity(record: Record) -> Identity | None:
    try:
        envelope, _ = decode_record(record)
    except DecodeError:
        return None
    return envelope.source, envelope.type, envelope.id
