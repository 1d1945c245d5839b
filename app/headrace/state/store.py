"""States in Postgres, read and written by set."""

from __future__ import annotations

from collections.abc import Sequence

from headrace import sql
from headrace.database.pool import Connection
from headrace.errors import ConflictError
from headrace.state.cache import StoredState


async def read(connection: Connection, subscription: str, state: str, keys: Sequence[str]) -> list[StoredState]:
    """Return what Postgres holds for each of the keys. `StateCache.fill` decodes it, in whichever thread is free."""
    rows = await connection.fetch(sql.state.READ, subscription, state, keys)
    stored = [StoredState(row["key"], row["data"].encode(), row["version"]) for row in rows]
    known = {row.key for row in stored}
    return stored + [StoredState(key, b"", 0) for key in keys if key not in known]


async def write(
    connection: Connection,
    subscription: str,
    partition: int,
    state: str,
    rows: Sequence[tuple[str, int, str]],
) -> None:
    """Write (key, new version, JSON) rows, sorted by key so that two writers never wait for each other in a circle.

    Raises: ConflictError if a row's version is not the one before: another writer changed it since it was read.
    """
    keys, versions, data = zip(*rows, strict=True)
    status = await connection.execute(sql.state.WRITE, subscription, state, partition, keys, versions, data)
    written = int(status.rpartition(" ")[2])
    if written != len(rows):
        raise ConflictError(
            f"{len(rows) - written} of {len(rows)} states of {subscription}.{state} were changed elsewhere."
        )
