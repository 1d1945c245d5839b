"""Moves what waits elsewhere into the outbox: timers that are due, and dead letters that a person wants to be replayed.

A transaction of a team's own may keep a key's bucket or a timer's row for as long as it likes. So nothing here waits
for it: what can be locked at once is moved, and the other keys stay where they are until they are looked at again. Only
for one bucket at a time a moment is waited, so that a timer has its turn among routes that emit for its key all the
time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from headrace import sql
from headrace.database.failures import LOCK_NOT_AVAILABLE, sqlstate_of
from headrace.database.pool import Connection
from headrace.log.ports import NewRecord
from headrace.log.stored import new_record
from headrace.outbox.rows import ANY_SIZE, bucket_of, first_of, new_row, write
from headrace.timers.store import FiredTimer, fired_timer

MOST_TIMERS = 100
"""Timers of a slot that move into the outbox in one transaction."""
MOST_BYTES = 4 * 2**20
"""Of what moves into the outbox in one transaction, unless a single event has more."""
LOOKS = 10
"""How often one transaction looks again behind the keys that others hold."""


class Moved(NamedTuple):
    """What has moved into the outbox."""

    fired: list[FiredTimer]
    slots: set[int]
    """Those that have new rows."""
    are_left: bool
    """True if others hold a key, so that some of its timers are left."""


async def move_timers(
    connection: Connection, service: str, group: str, slots: Sequence[int], *, may_wait: bool
) -> Moved:
    """Move timers of the slots that are due, in the caller's transaction: none of a key that somebody else holds."""
    held: set[bytes] = set()
    for _ in range(LOOKS):
        due = await connection.fetch(sql.timer.DUE, group, slots, MOST_TIMERS, list(held))
        held_now = await _held(connection, service, {row["key"] for row in due}, may_wait and not held)
        rows = first_of([row for row in due if row["key"] not in held_now], len(due), MOST_BYTES)
        locked = await connection.fetch(sql.timer.LOCK_DUE, group, *_names(rows)) if rows else []
        found = Counter(row["key"] for row in locked)
        held_now |= {key for key, count in Counter(row["key"] for row in rows).items() if found[key] < count}
        held |= held_now
        if rows := [row for row in rows if row["key"] not in held]:
            taken = await connection.fetch(sql.timer.TAKE, group, *_names(rows))
            fired = [fired_timer(row) for row in taken]
            woken = await write(connection, service, [new_row(timer.record, ANY_SIZE) for timer in fired])
            return Moved(fired, woken, bool(held))
        if not held_now:
            break
    return Moved([], set(), bool(held))


async def move_replays(connection: Connection, service: str, group: str) -> None:
    """Put refused events that are to be replayed behind what waits, in the caller's transaction."""
    held: set[bytes] = set()
    for _ in range(LOOKS):
        letters = await connection.fetch(sql.dead_letter.WAITING_REFUSED_EMITS, group, list(held), MOST_BYTES)
        held_now = await _held(connection, service, {row["record_key"] or b"" for row in letters}, not held)
        held |= held_now
        if rows := [row for row in letters if (row["record_key"] or b"") not in held]:
            await connection.fetch(sql.dead_letter.SETTLE_REPLAYS, [row["id"] for row in rows])
            await write(connection, service, [new_row(_letter_record(row), ANY_SIZE) for row in rows])
            return
        if not held_now:
            return


async def _held(connection: Connection, service: str, keys: Collection[bytes], may_wait: bool) -> set[bytes]:
    """Lock the buckets of the keys until the transaction ends; return the keys whose buckets others have locked."""
    buckets = {bucket_of(key) for key in keys}
    if not buckets:
        return set()
    free = {row["bucket"] for row in await connection.fetch(sql.outbox.TRY_BUCKETS, service, sorted(buckets))}
    if may_wait and buckets > free:
        bucket = random.choice(sorted(buckets - free))  # noqa: S311 - whose turn it is
        try:
            async with connection.transaction():
                await connection.execute(sql.outbox.WAIT_SHORTLY)
                await connection.execute(sql.outbox.LOCK_BUCKET, service, bucket)
                await connection.execute(sql.outbox.WAIT_AS_BEFORE)
            free.add(bucket)
        except Exception as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise
    return {key for key in keys if bucket_of(key) not in free}


def _names(rows: Sequence[Any]) -> tuple[list[str], list[bytes], list[str]]:
    return [row["type"] for row in rows], [row["key"] for row in rows], [row["name"] for row in rows]


def _letter_record(row: Any) -> NewRecord:
    return new_record(row["topic"], row["record_key"], row["value"], row["headers"])
