"""What a row of the outbox is: a record, and where its key belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple

from headrace import sql
from headrace.database.pool import Connection
from headrace.emits.emitter import size_of
from headrace.errors import RecordTooLargeError
from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord
from headrace.log.stored import pack_headers
from headrace.publishing.checking import CheckedEvent

BUCKETS = 1_024
"""Transactions of one bucket commit one after another. More would need more of Postgres' lock table (6,400 entries by
default) when one transaction emits for thousands of keys."""
SLOTS = 64
"""The most processes that share the work of a service; the trigger of `headrace.outbox` knows the number as well."""

ANY_SIZE = 2**31
"""The limit of an event that is committed already: it is too late to refuse it."""

Prepare = Callable[..., CheckedEvent]
"""(event, key=..., id=...) -> the event, checked. Raises: ConfigurationError, EventError."""
Wake = Callable[[set[int]], None]
"""Tells the relay that the slots have committed rows."""


class Append(NamedTuple):
    """Where the event store keeps the event of a row, whose key is the stream's."""

    stream: str
    version: int
    appended_at: datetime


class NewRow(NamedTuple):
    """A row to be written; the trigger gives it its number and slot."""

    bucket: int
    topic: str
    key: bytes | None
    value: bytes | None
    headers: bytes

    @property
    def slot(self) -> int:
        """The slot that the trigger will give it."""
        return self.bucket % SLOTS


def new_row(record: NewRecord, max_bytes: int) -> NewRow:
    """Return the row of a record. Raises: RecordTooLargeError, since here the team can still see and mend it."""
    size = size_of(record)
    if size > max_bytes:
        raise RecordTooLargeError(
            f"the event has {size:,} bytes, the log takes {max_bytes:,}; publish less, or raise "
            "HEADRACE_KAFKA_MAX_RECORD_BYTES and the topic's max.message.bytes."
        )
    return NewRow(bucket_of(record.key), record.topic, record.key, record.value, pack_headers(record.headers))


def first_of(rows: Sequence[Any], most: int, most_bytes: int) -> list[Any]:
    """Return the first of the rows, each with its `bytes`: at least one, and no more than that many or bytes."""
    sizes = accumulate(row["bytes"] for row in rows)
    return [row for place, (row, size) in enumerate(zip(rows, sizes, strict=True)) if not place or size <= most_bytes][
        :most
    ]


def bucket_of(key: bytes | None) -> int:
    """Return the bucket of a key."""
    return partition_for(key or b"", BUCKETS)


def slot_of(key: bytes | None) -> int:
    """Return the slot of a key."""
    return bucket_of(key) % SLOTS


async def write(connection: Connection, service: str, rows: Sequence[NewRow]) -> set[int]:
    """Write the rows in the connection's transaction; return the slots to wake after its commit."""
    if rows:
        await connection.execute(sql.outbox.INSERT, service, *_columns(rows))
    return {row.slot for row in rows}


async def write_kept(
    connection: Connection, service: str, rows: Sequence[NewRow], appends: Mapping[int, Append]
) -> set[int]:
    """Write the rows, of those that were appended the ones that are stored: no savepoint has taken them back.

    `appends` says by their places which ones were appended.
    """
    if not appends:
        return await write(connection, service, rows)
    nothing = (None,) * len(Append._fields)
    places = [appends.get(place, nothing) for place in range(len(rows))]
    await connection.execute(sql.outbox.INSERT_KEPT, service, *_columns(rows), *_columns(places))
    return {row.slot for row in rows}


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
