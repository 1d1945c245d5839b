"""Dead letters in Postgres, as the owner of a partition writes them and reads them for a replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from headrace import sql
from headrace.cloudevents import decode_record
from headrace.database.pool import Connection, Row
from headrace.errors import HandlerError
from headrace.item import Item
from headrace.log.ports import NewRecord, StoredRecord, TopicPartition
from headrace.log.stored import pack_headers, plain, stored_record

MOST_REPLAYS, MOST_REPLAY_BYTES = 1_000, 4 * 2**20
"""Replays of one partition that are read at a time."""

EMIT_REFUSED = "emit_refused"
"""The reason of a dead letter that is an emitted event: a replay publishes it again."""


class Replay(NamedTuple):
    """A dead letter to be replayed."""

    id: UUID
    reason: str
    record: StoredRecord
    original: StoredRecord | None = None
    """The record as the log has it, if a person has edited it."""


async def store_dead_letters(
    connection: Connection, group: str, partition: int, items: Sequence[tuple[Item, int]]
) -> None:
    """Write (item, attempts) pairs as dead letters."""
    await connection.execute(
        sql.dead_letter.INSERT, group, partition, *zip(*(_row(*pair) for pair in items), strict=True)
    )


async def store_refused_emit(
    connection: Connection, group: str, partition: TopicPartition, record: NewRecord, error: Exception
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
        plain(str(error)),
        type(error).__name__,
    )


async def read_replays(connection: Connection, group: str, partitions: Sequence[int]) -> dict[int, list[Replay]]:
    """Return the first dead letters to be replayed, by partition, in the order of the log."""
    rows = await connection.fetch(sql.dead_letter.WAITING_REPLAYS, group, partitions, MOST_REPLAYS, MOST_REPLAY_BYTES)
    found: dict[int, list[Replay]] = {}
    for row in rows:
        found.setdefault(row["partition"], []).append(_replay(row))
    return found


def error_type(error: BaseException | None) -> str | None:
    """Return the class of what went wrong; None if no code of anybody's raised it, such as the end of a process."""
    cause = error.__cause__ if isinstance(error, HandlerError) else error
    return plain(type(cause).__name__, 200) if cause is not None else None


def _replay(row: Row) -> Replay:
    record = stored_record(row, row["partition"])
    if row["edited_value"] is None:
        return Replay(row["id"], row["reason"], record)
    return Replay(row["id"], row["reason"], msgspec.structs.replace(record, value=row["edited_value"]), record)


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
        error_type(item.error),
        item.handler.name if item.handler is not None else None,
        attempts,
    )
