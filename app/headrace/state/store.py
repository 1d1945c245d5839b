"""States in Postgres, read and written by set."""

from __future__ import annotations

import time
from collections.abc import Sequence

from headrace import sql
from headrace.database.pool import Connection
from headrace.errors import ConflictError
from headrace.keeping import Keeping
from headrace.state.cache import StoredState


async def read(connection: Connection, subscription: str, state: str, keys: Sequence[str]) -> list[StoredState]:
    """Return what Postgres holds for each of the keys. `StateCache.fill` decodes it, in whichever thread is free."""
    asked = time.monotonic()
    rows = await connection.fetch(sql.state.READ, subscription, state, keys)
    stored = [_stored(asked, *row) for row in rows]
    known = {row.key for row in stored}
    return stored + [StoredState(key, b"", 0) for key in keys if key not in known]


def _stored(
    asked: float, key: str, version: int, data: str, class_version: int, left_seconds: float | None
) -> StoredState:
    """Return a row as the cache takes it: it ends at the latest when Postgres says, whatever time the answer took."""
    if left_seconds is None:
        return StoredState(key, data.encode(), version, class_version)
    return StoredState(key, data.encode() if left_seconds > 0 else b"", version, class_version, asked + left_seconds)


async def write(
    connection: Connection,
    subscription: str,
    partition: int,
    state: str,
    rows: Sequence[tuple[str, int, str]],
    keeping: Keeping,
) -> None:
    """Write (key, new version, JSON) rows of a class that is kept so.

    They are sorted by key, so that two writers never wait for each other in a circle.
    Raises: ConflictError if a row's version is not the one before: another writer changed it since it was read.
    """
    keys, versions, data = zip(*rows, strict=True)
    status = await connection.execute(
        sql.state.WRITE, subscription, state, partition, keys, versions, data, keeping.ttl, keeping.version
    )
    written = int(status.rpartition(" ")[2])
    if written != len(rows):
        raise ConflictError(
            f"{len(rows) - written} of {len(rows)} states of {subscription}.{state} were changed elsewhere."
        )
