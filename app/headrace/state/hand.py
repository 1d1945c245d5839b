"""States as a person lists, reads and changes them, beside a running service.

The owner of a partition keeps states in memory as their only writer. So a change by hand takes the claim's token as
well: a batch that has read the state before cannot commit, and the owner claims again and reads what is there now. The
row comes before the claim, as in a batch, so that the two never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from headrace import sql
from headrace.database.pool import Connection, Row
from headrace.errors import ConfigurationError
from headrace.keeping import Keeping
from headrace.log.partitioner import partition_for
from headrace.log.stored import plain

Action = Literal["put", "delete"]


class Place(NamedTuple):
    """Which state: the group of its subscription (SERVICE.NAME), the name of its class in lower case, its key."""

    group: str
    state: str
    key: str


class Act(NamedTuple):
    """Who changes a state, and why."""

    by: str
    why: str | None


async def count(connection: Connection, group: str | None) -> Sequence[Row]:
    """Return how many keys each state has, by subscription; those of one group, or of all."""
    rows: Sequence[Row] = await connection.fetch(sql.state.COUNT, group)
    return rows


async def keys(connection: Connection, group: str, state: str, after: str | None, limit: int) -> Sequence[Row]:
    """Return keys behind `after`, with what is kept for each."""
    rows: Sequence[Row] = await connection.fetch(sql.state.LIST, group, state, after, limit)
    return rows


async def changes(connection: Connection, place: Place, limit: int) -> Sequence[Row]:
    """Return what people have done to a state, the latest first."""
    rows: Sequence[Row] = await connection.fetch(sql.state_change.LIST, *place, limit)
    return rows


async def change(
    connection: Connection, place: Place, data: str | None, act: Act, keeping: Keeping | None = None
) -> int | None:
    """Write the JSON of a state, for as long as its class says, or delete it (None).

    Returns its new version, None if it is gone. In one transaction with the note of who did it.
    Raises: ConfigurationError (there is none to delete, the subscription never ran).
    """
    async with connection.transaction():
        row = await connection.fetchrow(sql.state.READ_FOR_UPDATE, *place)
        if row is None and data is None:
            raise ConfigurationError(f"{place.group} has no state {place.state!r} of the key {place.key!r}.")
        partition = row["partition"] if row is not None else await _partition(connection, place)
        version: int | None = None
        if data is None:
            await connection.execute(sql.state.DELETE, *place)
        else:
            kept = keeping or Keeping(place.state)
            version = await connection.fetchval(sql.state.PUT, *place, partition, data, kept.ttl, kept.version)
        await connection.execute(sql.claim.FENCE, place.group, partition)
        action: Action = "delete" if data is None else "put"
        before: Any = row["data"] if row is not None else None
        why = plain(act.why) if act.why else None
        await connection.execute(sql.state_change.NOTE, *place, action, before, data, plain(act.by, 200), why)
    return version


async def _partition(connection: Connection, place: Place) -> int:
    """Return where events of the key are, by the default partitioner."""
    partitions: int = await connection.fetchval(sql.claim.COUNT_PARTITIONS, place.group)
    if partitions == 0:
        raise ConfigurationError(f"the subscription {place.group} has never run here; start the service first.")
    return partition_for(place.key.encode(), partitions)
