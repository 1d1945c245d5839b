"""That a person has moved a claim: kept with who did it, and what its next owners have to know of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from headrace import sql
from headrace.database.pool import Connection
from headrace.ledger.rows import Row
from headrace.log.ports import TopicPartition
from headrace.log.stored import plain

Action = Literal["rewind", "accept", "add"]


class Quiet(NamedTuple):
    """Events that are applied for a second time: their effects are not started again."""

    until: int
    """The offset at which new events begin."""
    first_runs: frozenset[int]
    """Offsets before it of events that were never applied: their effects are started."""

    def is_second_run(self, offset: int) -> bool:
        """True if the event at the offset was applied before the claim was moved."""
        return offset < self.until and offset not in self.first_runs


NOTHING = Quiet(0, frozenset())


async def read_quiet(connection: Connection, group: str, partition: int) -> dict[str, Quiet]:
    """Return which events of a partition number are applied for a second time, by topic.

    A claim that was taken along to another log has other offsets since. Raises: asyncpg's errors.
    """
    return {
        row["topic"]: Quiet(row["quiet_until"], frozenset(row["first_runs"]))
        for row in await connection.fetch(sql.claim_move.LAST, group, partition)
        if row["action"] == "rewind" and row["quiet_until"] is not None
    }


async def note_move(
    connection: Connection,
    group: str,
    place: TopicPartition,
    row: Row,
    action: Action,
    *,
    quiet_until: int | None = None,
    first_runs: Collection[int] = (),
    changed: Mapping[str, object] | None = None,
    by: str | None = None,
    why: str | None = None,
) -> None:
    """Keep that a person has moved a claim, as its ledger row says, inside the caller's transaction."""
    moved = row.sequence, action, row.first_offset, row.next_offset, quiet_until, sorted(first_runs)
    named = plain(by, 200) if by is not None else None
    because = plain(why) if why is not None else None
    await connection.execute(sql.claim_move.NOTE, group, *place, *moved, json.dumps(changed or {}), named, because)
