"""What the tables hold of each subscription, declared or not, and its removal.

A subscription that was renamed or removed from the code leaves its rows behind: claims, ledger, states, lanes, dead
letters. Nothing deletes them by itself, since a roll-back may bring the code back; a person removes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from headrace.database.pool import Connection, Row

FIND = """
with named as (
    select subscription from headrace.claim union select subscription from headrace.subscription
    union select subscription from headrace.lane union select subscription from headrace.dead_letter
)
select named.subscription,
       (select count(*) from headrace.claim where claim.subscription = named.subscription) as partitions,
       (select array_agg(distinct owner) filter (where owner is not null)
          from headrace.claim where claim.subscription = named.subscription) as owners,
       (select max(committed_at) from headrace.claim where claim.subscription = named.subscription) as committed_at,
       (select count(*) from headrace.state where state.subscription = named.subscription) as states,
       (select count(*) from headrace.lane where lane.subscription = named.subscription) as lanes,
       (select count(*) from headrace.dead_letter
         where dead_letter.subscription = named.subscription and decision is null) as dead_letters,
       (select count(*) from headrace.claim join headrace.ledger using (subscription, topic, partition)
         where claim.subscription = named.subscription and emits is not null
           and ledger.sequence > claim.emitted_through) as unpublished
from named where $1::text is null or named.subscription = $1 order by named.subscription
"""
"""What the tables hold of each group; `unpublished` are batches whose emitted events may not be in the log yet."""

LOCK = "select owner from headrace.claim where subscription = $1 order by topic, partition for update"
"""Keep owners from committing, and read who they are."""

REMOVE = {
    table: f"delete from headrace.{table} where subscription = $1"  # noqa: S608 - the tables are those below
    for table in ("parked", "lane", "dead_letter", "state", "ledger", "claim", "subscription")
}
"""Delete a group's rows, table by table."""


class Removed(NamedTuple):
    """The group is gone; rows by table."""

    rows: dict[str, int]


class Owned(NamedTuple):
    """Nothing was removed, since these processes own partitions of the group, or died owning them."""

    owners: tuple[str, ...]


async def find(connection: Connection, group: str | None = None) -> list[Row]:
    """Return what is held of each group, or of one. It reads whole tables: no time limit is set on it."""
    async with connection.transaction():
        await connection.execute("set local statement_timeout = 0")
        return list(await connection.fetch(FIND, group))


async def remove(connection: Connection, group: str, *, owners_are_dead: bool) -> Removed | Owned:
    """Remove all rows of a group, or none.

    A process that still owned a partition would be fenced, and begin it again from its start with empty states; so
    owners must be gone, or be declared dead.
    """
    async with connection.transaction():
        await connection.execute("set local statement_timeout = 0")
        owners = sorted({row["owner"] for row in await connection.fetch(LOCK, group)} - {None})
        if owners and not owners_are_dead:
            return Owned(tuple(owners))
        counts: dict[str, Any] = {table: await connection.execute(sql, group) for table, sql in REMOVE.items()}
    return Removed({table: int(status.rpartition(" ")[2]) for table, status in counts.items()})
