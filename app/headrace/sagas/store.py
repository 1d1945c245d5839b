"""Follows the states of sagas in `headrace.saga`, in the transaction that writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace import sql
from headrace.database.pool import Connection


class EndedSaga(NamedTuple):
    """A saga that has ended: how, and how long it took."""

    outcome: str
    seconds: float


async def follow(
    connection: Connection, group: str, partition: int, rows: Sequence[tuple[str, int, str]]
) -> list[EndedSaga]:
    """Write where the sagas stand, of (key, version, JSON) sorted by key; return those that have ended with it."""
    keys, _, data = zip(*rows, strict=True)
    written = await connection.fetch(sql.saga.WRITE, group, partition, keys, data)
    return [EndedSaga(row["status"], row["seconds"]) for row in written if row["has_ended"]]
