"""What a partition that was added to a topic inherits: the event ids that its keys' old partition has seen."""

from __future__ import annotations

from headrace.database.pool import Connection
from headrace.ledger.rows import IDENTITY_BYTES
from headrace.log.ports import TopicPartition

LAST = (
    "select coalesce(max(sequence), 0) from headrace.ledger where subscription = $1 and topic = $2 and partition = $3"
)
"""Tells the last row of a partition, if the topic had one of that number before."""

COPY = """
with newest as (
    select sequence, ids, marks, committed_at,
           coalesce(sum(length(ids)) over (order by sequence desc rows between unbounded preceding and 1 preceding), 0)
               as newer_bytes
    from headrace.ledger
    where subscription = $1 and topic = $2 and partition = $3 and length(ids) > 0
)
insert into headrace.ledger (subscription, topic, partition, sequence, kind, epoch, first_offset, next_offset,
                             applied, skipped, parked, dead, ids, marks, committed_at)
select $1, $2, $4, $5 + row_number() over (order by sequence), 0, 0, $6, $6, 0, 0, 0, 0, ids, marks, committed_at
from newest where newer_bytes < $7
returning length(ids) as bytes
"""
"""Copies the newest ids of one partition into the ledger of another, as batches that did nothing else."""


async def inherit_ids(
    connection: Connection, group: str, source: TopicPartition, heir: int, offset: int, limit: int
) -> tuple[int, int]:
    """Copy the newest `limit` ids of the partition, or a few more, to partition number `heir` of its topic.

    Returns the last ledger sequence of the heir, and how many ids it knows. The marks are copied as they are: their
    offsets are those of the source. `offset` is the heir's first one.
    """
    last = await connection.fetchval(LAST, group, source.topic, heir)
    rows = await connection.fetch(COPY, group, *source, heir, last, offset, limit * IDENTITY_BYTES)
    return last + len(rows), sum(row["bytes"] for row in rows) // IDENTITY_BYTES
