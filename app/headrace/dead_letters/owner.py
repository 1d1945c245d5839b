"""Dead letters in Postgres, as the owner of a partition writes them and reads them for a replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from headrace import sql
from headrace.cloudevents import decode_record
from headrace.database.pool import Connection
from headrace.item import Item
from headrace.log.ports import NewRecord, StoredRecord, TopicPartition
from headrace.log.stored import pack_headers, plain, stored_record

MOST_REPLAYS, MOST_REPLAY_BYTES = 100, 4 * 2**20
"""Replays of one partition that are read at a time."""


async def store_dead_letters(
    connection: Connection, group: str, partition: int, items: Sequence[tuple[Item, int]]
) -> None:
    """Write (item, attempts) pairs as dead letters."""
    await connection.execute(
        sql.dead_letter.INSERT, group, partition, *zip(*(_row(*pair) for pair in items), strict=True)
    )


async def store_refused_emit(
    connection: Connection, group: str, partition: TopicPartition, record: NewRecord, error: str
) -> None:
    """Write an emitted event that the log does not take as a dead letter of the partition whose event caused it."""
    envelope, _ = decode_record(record)
    await connection.execute(
        sql.dead_letter.INSERT_REFUSED_EMIT,
        group,
        partition.partition,
        record.topic,
        record.key,
        record.value,
        pack_headers(record.headers),
        plain(envelope.source),
        plain(envelope.id),
        plain(envelope.type),
        plain(error),
    )


async def read_replays(
    connection: Connection, group: str, partitions: Sequence[int]
) -> dict[int, list[tuple[UUID, str, StoredRecord]]]:
    """Return (id, reason, record) of the first dead letters to be replayed, by partition."""
    rows = await connection.fetch(sql.dead_letter.WAITING_REPLAYS, group, partitions, MOST_REPLAYS, MOST_REPLAY_BYTES)
    found: dict[int, list[tuple[UUID, str, StoredRecord]]] = {}
    for row in rows:
        found.setdefault(row["partition"], []).append((row["id"], row["reason"], stored_record(row, row["partition"])))
    return found


def _row(item: Item, attempts: int) -> tuple[Any, ...]:
    record, envelope = item.record, item.envelope
    return (
        record.topic,
        record.offset,
        record.timestamp,
        item.key.encode() if item.key is not None else record.key,
        record.key,
        record.value,
        pack_headers(record.headers),
        plain(envelope.source) if item.is_named else None,
        plain(envelope.id) if item.is_named else None,
        plain(envelope.type) if item.is_named else None,
        item.outcome.value,
        plain(str(item.error or item.outcome.value)),
        item.handler.name if item.handler is not None else None,
        attempts,
    )
