"""What one batch commits: everything it did, in a number of statements that does not grow with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import asyncpg

from headrace.dead_letters.store import bury
from headrace.emits.emitter import pack
from headrace.engine.claim import Claim, Fingerprint
from headrace.engine.lanes import ATTEMPT, CLOSE, UNPARK, Lane, open_lanes, park
from headrace.item import APPLIED, DEAD, PARKED, SKIPPED, Item, Outcome
from headrace.log.ports import NewRecord
from headrace.state.store import write

LEDGER = """
insert into headrace.ledger (subscription, topic, partition, sequence, kind, epoch, first_offset, next_offset,
                             applied, skipped, parked, dead, ids, emits)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""

BATCH, RETRY = 0, 1

_fate = attrgetter("outcome", "envelope.type")

StateRow = tuple[str, int, str]
"""(key, new version, JSON)."""


@dataclass
class Effects:
    """All that a batch changes. `kind` is BATCH or RETRY; `next_offset` is where the claim stands afterwards."""

    kind: int
    items: Sequence[Item]
    next_offset: int
    last: Fingerprint | None
    identities: list[bytes] = field(default_factory=list)
    states: dict[str, list[StateRow]] = field(default_factory=dict)
    emits: list[tuple[Item, NewRecord]] = field(default_factory=list)
    parked: list[Item] = field(default_factory=list)
    """Items that enter a lane, numbered."""
    dead: list[tuple[Item, int]] = field(default_factory=list)
    """(item, attempts) that become dead letters."""
    lanes: dict[str, Lane] = field(default_factory=dict)
    """Lanes as they are to be from now on."""
    released: list[Item] = field(default_factory=list)
    """Items that leave their lane."""
    closed: list[str] = field(default_factory=list)
    """Keys whose lane is empty from now on."""

    emitted_through: int = 0
    """What was written into the claim: the relay may have come further since, and the claim must know it lags."""
    tally: Counter[tuple[Outcome, str]] = field(default_factory=Counter)
    """Items by (outcome, event type)."""

    def count(self) -> None:
        """Fill `tally`, once every outcome is known."""
        self.tally = Counter(map(_fate, self.items))

    def total(self, outcomes: Container[Outcome]) -> int:
        """Return how many items ended in one of the outcomes."""
        return sum(count for (outcome, _), count in self.tally.items() if outcome in outcomes)


async def write_effects(
    connection: asyncpg.Connection[Any], claim: Claim, effects: Effects, sequence: int, emitted_through: int
) -> None:
    """Write everything and move the claim along, inside the caller's transaction.

    Raises: FencedError (another owner), ConflictError (a state changed elsewhere), DataRefusedError by classification.
    """
    group, partition = claim.group, claim.source.partition
    for state, rows in effects.states.items():
        if rows:
            await write(connection, group, partition, state, rows)
    if effects.parked:
        await park(connection, group, partition, effects.parked)
    if effects.released:
        keys = [(item.key or "").encode() for item in effects.released]
        await connection.execute(UNPARK, group, partition, keys, [item.number for item in effects.released])
    if effects.lanes:
        await open_lanes(connection, group, partition, effects.lanes)
    if effects.closed:
        await connection.execute(CLOSE, group, partition, [key.encode() for key in effects.closed])
    if effects.dead:
        await bury(connection, group, partition, effects.dead)
    if effects.items or effects.next_offset != claim.next_offset:
        await connection.execute(
            LEDGER,
            *claim.identity[:3],
            sequence,
            effects.kind,
            claim.epoch,
            claim.next_offset,
            effects.next_offset,
            effects.total(APPLIED),
            effects.total(SKIPPED),
            effects.total(PARKED) if effects.kind == BATCH else 0,
            effects.total(DEAD),
            b"".join(effects.identities),
            pack([record for _, record in effects.emits]) if effects.emits else None,
        )
    await claim.advance(connection, effects.next_offset, sequence, emitted_through, effects.last)


async def count_attempts(connection: asyncpg.Connection[Any], claim: Claim, keys: Sequence[str]) -> None:
    """Count a run of the lanes' heads before it starts, so that a run that kills the process is counted too."""
    await claim.guard(connection)
    await connection.execute(ATTEMPT, claim.group, claim.source.partition, [key.encode() for key in sorted(keys)])
