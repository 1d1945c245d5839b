"""Dead letters in Postgres, as the owner of a partition writes them and reads them for a replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from headrace.database.pool import Connection
from headrace.item import Item
from headrace.log.ports import NewRecord, StoredRecord, TopicPartition
from headrace.log.stored import pack_headers, plain, stored_record

INSERT = """
insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", key, record_key, value,
                                  headers, source, event_id, type, reason, error, handler, attempts)
select $1, $2, new.*
from unnest($3::text[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[], $10::text[],
            $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::int[]) as new
"""
"""Writes dead letters."""

INSERT_EMIT = """
insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", key, record_key, value,
                                  headers, source, event_id, type, reason, error)
select $1, $2, $3, -1, (extract(epoch from now()) * 1000)::bigint, $4, $4, $5, $6, $7, $8, $9, 'emit_refused', $10
where not exists (
    select from headrace.dead_letter
    where subscription = $1 and source = $7 and event_id = $8 and reason = 'emit_refused' and decision is null
)
"""
"""Writes an emitted event that the log refused; it has no offset. A second owner may find it refused as well."""

REPLAYS = """
with waiting as (
    select id, partition, reason, topic, "offset", "timestamp", record_key, value, headers,
           sum(coalesce(octet_length(value), 0) + octet_length(headers))
               over (partition by partition order by topic, "offset", id) as bytes,
           row_number() over (partition by partition order by topic, "offset", id) as place
    from headrace.dead_letter
    where subscription = $1 and partition = any($2::int[]) and decision = 'replay' and settled_at is null
)
select id, partition, reason, topic, "offset", "timestamp", record_key, value, headers from waiting
where place = 1 or (place <= $3 and bytes <= $4) order by partition, place
"""
"""Reads the first dead letters of each partition that are to be replayed."""

SETTLE = """
update headrace.dead_letter set settled_at = now()
where id = any($1::uuid[]) and decision = 'replay' and settled_at is null returning id
"""
"""Notes that replays were carried out; returns those that still were asked for."""

REOPEN = """
update headrace.dead_letter set decision = null, decided_at = null, error = again.error
from unnest($1::uuid[], $2::text[]) as again (id, error)
where dead_letter.id = again.id and decision = 'replay' and settled_at is null
"""
"""Returns replays that are not possible to the open dead letters, with the new reason."""

COUNT = """
select reason, count(*) as open from headrace.dead_letter
where subscription = $1 and decision is null and partition = any($2::int[]) group by reason
"""
"""Counts the open dead letters of some partitions by reason."""

MOST_REPLAYS, MOST_REPLAY_BYTES = 100, 4 * 2**20
"""Replays of one partition that are read at a time."""


async def store_dead_letters(
    connection: Connection, group: str, partition: int, items: Sequence[tuple[Item, int]]
) -> None:
    """Write (item, attempts) pairs as dead letters."""
    await connection.execute(INSERT, group, partition, *zip(*(_row(*pair) for pair in items), strict=True))


async def store_refused_emit(
    connection: Connection, group: str, partition: TopicPartition, record: NewRecord, error: str
) -> None:
    """Write an emitted event that the log does not take as a dead letter of the partition whose event caused it."""
    names = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    await connection.execute(
        INSERT_EMIT,
        group,
        partition.partition,
        record.topic,
        record.key,
        record.value,
        pack_headers(record.headers),
        plain(names.get("ce_source", "")),
        plain(names.get("ce_id", "")),
        plain(names.get("ce_type", "")),
        plain(error),
    )


async def read_replays(
    connection: Connection, group: str, partitions: Sequence[int]
) -> dict[int, list[tuple[UUID, str, StoredRecord]]]:
    """Return (id, reason, record) of the first dead letters to be replayed, by partition."""
    rows = await connection.fetch(REPLAYS, group, partitions, MOST_REPLAYS, MOST_REPLAY_BYTES)
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
