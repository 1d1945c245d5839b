"""What a partition that was added to a topic inherits: the event ids that its keys' old partition has seen."""

from __future__ import annotations

from headrace import sql
from headrace.database.pool import Connection
from headrace.ledger.rows import IDENTITY_BYTES, insert_row, move
from headrace.log.ports import TopicPartition


async def inherit_ids(
    connection: Connection, group: str, source: TopicPartition, heir: int, offset: int, limit: int
) -> tuple[int, int]:
    """Copy the newest `limit` ids of the partition, or a few more, to partition number `heir` of its topic.

    Returns the last ledger sequence of the heir, and how many ids it knows. The marks are copied as they are: their
    offsets are those of the source. `offset` is the heir's first one; a row says that it begins there, since an earlier
    partition of that number may have left rows.
    """
    last = 1 + await connection.fetchval(sql.ledger.LAST_SEQUENCE, group, source.topic, heir)
    await insert_row(connection, group, TopicPartition(source.topic, heir), move(last, 0, offset, offset))
    rows = await connection.fetch(sql.ledger.COPY_IDS, group, *source, heir, last, offset, limit * IDENTITY_BYTES)
    return last + len(rows), sum(row["bytes"] for row in rows) // IDENTITY_BYTES
