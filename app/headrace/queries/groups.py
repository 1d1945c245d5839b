"""What the tables hold of each subscription, declared or not, and its removal.

A subscription that was renamed or removed from the code leaves its rows behind: claims, ledger, states, lanes, dead
letters. Nothing deletes them by itself, since a roll-back may bring the code back; a person removes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from headrace import sql
from headrace.database.pool import Connection, Row


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
        return list(await connection.fetch(sql.subscription.LIST, group))


async def remove(connection: Connection, group: str, *, owners_are_dead: bool) -> Removed | Owned:
    """Remove all rows of a group, or none.

    A process that still owned a partition would be fenced, and begin it again from its start with empty states; so
    owners must be gone, or be declared dead.
    """
    async with connection.transaction():
        await connection.execute("set local statement_timeout = 0")
        owners = sorted({row["owner"] for row in await connection.fetch(sql.claim.OWNERS_FOR_UPDATE, group)} - {None})
        if owners and not owners_are_dead:
            return Owned(tuple(owners))
        counts: dict[str, Any] = {
            table: await connection.execute(query, group) for table, query in sql.subscription.REMOVE.items()
        }
    return Removed({table: int(status.rpartition(" ")[2]) for table, status in counts.items()})
