"""Brings every row of a state up to the version of its class, while the service goes on.

Each row is written if it is still as it was read. An owner that keeps it in memory meets the row's new version when it
writes, reads the row again, and runs its batch again: no change is lost on either side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from headrace import sql
from headrace.database.pool import Connection, Row
from headrace.state.codec import StateType

ROWS = 500
"""Of one transaction."""

Report = Callable[[int, int], None]
"""(rows done, rows in all)."""


class Migrated(NamedTuple):
    """What came of the rows of one state."""

    rows: int
    """Written."""
    refused: list[tuple[str, str]]
    """(key, why) of those that stay as they are."""


async def migrate(connection: Connection, group: str, state: StateType, report: Report) -> Migrated:
    """Write every older row of the state as the version of its class has it. Cancel: safe; go on by starting again.

    Raises: StateError.
    """
    version, written = state.keeping.version, 0
    after: str | None = None
    total = await connection.fetchval(sql.state.COUNT_OLDER, group, state.name, version)
    refused: list[tuple[str, str]] = []
    report(0, total)
    while rows := await connection.fetch(sql.state.OLDER, group, state.name, version, after, ROWS):
        after = rows[-1]["key"]
        made, failed = await asyncio.to_thread(_raised, state, rows)
        refused += failed
        if made:
            keys, versions, data = zip(*made, strict=True)
            status = await connection.execute(sql.state.RAISE, group, state.name, keys, versions, data, version)
            written += int(status.rpartition(" ")[2])
        report(min(total, written + len(refused)), total)
    return Migrated(written, refused)


def _raised(state: StateType, rows: Sequence[Row]) -> tuple[list[tuple[str, int, str]], list[tuple[str, str]]]:
    made, failed = [], []
    for row in rows:
        try:
            value, _ = state.load(row["data"].encode(), row["class_version"])
            made.append((row["key"], row["version"], state.encode(value).decode()))
        except ValueError as error:
            failed.append((row["key"], str(error)))
    return made, failed
