"""Dead letters in Postgres, as the owner of a partition writes and takes them up again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from headrace.item import Item
from headrace.log.stored import pack_headers, plain

BURY = """
insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", key, record_key, value,
                                  headers,
                                  source, event_id, type, reason, error, handler, attempts)
select $1, $2, new.*
from unnest($3::text[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[], $10::text[],
            $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::int[]) as new
"""

REPLAYS = """
select id, partition, topic, "offset", "timestamp", record_key, value, headers from headrace.dead_letter
where subscription = $1 and partition = any($2::int[]) and decision = 'replay' and settled_at is null
order by topic, "offset" limit 500
"""

SETTLE = """
update headrace.dead_letter set settled_at = now()
where id = any($1::uuid[]) and decision = 'replay' and settled_at is null returning id
"""

REOPEN = """
update headrace.dead_letter set decision = null, decided_at = null, error = again.error
from unnest($1::uuid[], $2::text[]) as again (id, error)
where dead_letter.id = again.id and decision = 'replay' and settled_at is null
"""

COUNT = """
select reason, count(*) as open from headrace.dead_letter
where subscription = $1 and decision is null and partition = any($2::int[]) group by reason
"""


async def bury(
    connection: asyncpg.Connection[Any], subscription: str, partition: int, items: Sequence[tuple[Item, int]]
) -> None:
    """Write (item, attempts) pairs as dead letters."""
    await connection.execute(BURY, subscription, partition, *zip(*(_row(*pair) for pair in items), strict=True))


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
