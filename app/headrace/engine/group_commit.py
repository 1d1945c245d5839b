"""Small batches of a process are committed together: while one group is written, the next one gathers.

A transaction of its own costs a batch four round trips and a flush, whatever is in it. With a few events in each batch
that is most of what it costs, and it decides how late an event is. So a small batch that has changed nothing but
states, the ledger and its claim is written by one statement, together with those that are ready meanwhile:

```
batch of partition 0 ─┐
batch of partition 3 ─┼─▶ one statement: claims, ledger rows, states ──▶ all of it is committed
batch of partition 4 ─┘                              └──▶ nothing is: each batch has a transaction of its own
```
The statement compares each claim as a batch's own transaction does. If a claim did not move, or a state was changed
elsewhere, it divides by zero, and Postgres takes all of it back. The transactions that follow tell whose fault it was.
It hardly waits for locks: a claim that an operator's command keeps locked holds up its own partition alone.
If the connection is lost, nobody knows what became of the group: each batch asks its claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from headrace import sql
from headrace.database.failures import LOCK_NOT_AVAILABLE, sqlstate_of, was_refused
from headrace.database.pool import Connection
from headrace.engine.claim import Claim, columns_of
from headrace.engine.effects import Effects
from headrace.errors import StateUnavailableError
from headrace.ledger.rows import Row

MOST_BATCHES = 64
"""In one statement."""
MOST_BYTES = 65_536
"""Of a batch's states and emits: a larger batch would hold up the others."""
LOCK_MILLISECONDS = 100
"""How long a group waits for a lock: less than until Postgres looks for a deadlock, and enough for another batch."""
NO_FAULT = ("22012", LOCK_NOT_AVAILABLE)
"""SQLSTATEs that refuse a group and are no failures of Postgres: the division by zero, and a lock that is held."""


class Member(NamedTuple):
    """One batch, and what hears whether it is committed."""

    claim: Claim
    effects: Effects
    row: Row
    is_committed: asyncio.Future[bool]


class GroupCommit:
    """Commits small batches of one process; `connect` lends a connection."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Connection]]) -> None:
        self._connect = connect
        self._waiting: list[Member] = []
        self._task: asyncio.Task[None] | None = None

    async def commit(self, claim: Claim, effects: Effects, row: Row) -> bool:
        """Commit a batch with others. Returns False if Postgres has refused the group: nothing was committed.

        Cancel: safe; the batch is committed or not, and the next claim tells.
        Raises: StateUnavailableError (the connection was lost: it is not known whether the batch is committed).
        """
        is_committed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(Member(claim, effects, row, is_committed))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="group commit")
        return await is_committed

    async def _run(self) -> None:
        group: list[Member] = []
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MOST_BATCHES], self._waiting[MOST_BATCHES:]
                try:
                    _tell(group, await self._write(group))
                except StateUnavailableError as error:
                    _tell(group, error)
        finally:
            self._task = None
            for member in [*group, *self._waiting]:
                member.is_committed.cancel()

    async def _write(self, group: Sequence[Member]) -> bool:
        """Commit the group. Returns False if Postgres has refused it, or was not asked. Raises: as `commit`."""
        is_asked = False
        try:
            rows = [member.row for member in group]
            states = [state for number, member in enumerate(group) for state in _states(number, member.effects)]
            batches = _json([_batch(number, member) for number, member in enumerate(group)])
            packed = [[row.ids for row in rows], [row.marks for row in rows], [row.emits for row in rows]]
            async with self._connect() as connection:
                is_asked = True
                counts = len(group), len(states)
                try:
                    await connection.execute(
                        sql.batch.COMMIT, batches, *packed, _json(states), *counts, str(LOCK_MILLISECONDS)
                    )
                except Exception as error:
                    if sqlstate_of(error) not in NO_FAULT:
                        raise
                    return False
                return True
        except Exception as error:
            if is_asked and isinstance(error, StateUnavailableError) and not was_refused(error):
                raise
            return False  # what is wrong shows when each batch is committed by itself


def is_small(effects: Effects) -> bool:
    """True if a batch of few events may be committed with others: nothing large is written, and nothing of its own."""
    if not effects.is_plain:
        return False
    emitted = sum([len(record.value or b"") for _, record in effects.emits])
    return emitted + sum([len(raw) for rows in effects.states.values() for _, _, raw in rows]) <= MOST_BYTES


def _tell(group: Sequence[Member], outcome: bool | Exception) -> None:
    for member in group:
        if member.is_committed.done():
            continue  # nobody waits for it any more
        if isinstance(outcome, Exception):
            member.is_committed.set_exception(outcome)
        else:
            member.is_committed.set_result(outcome)


class SmallBatch(msgspec.Struct):
    """A batch as `sql.batch.COMMIT` takes it."""

    number: int
    subscription: str
    topic: str
    partition: int
    epoch: int
    token: UUID
    held_offset: int
    held_sequence: int
    next_offset: int
    sequence: int
    emitted_through: int
    last_offset: int | None
    last_timestamp: int | None
    last_crc: int | None
    kind: int
    applied: int
    skipped: int
    parked: int
    dead: int


class SmallState(msgspec.Struct):
    """A state of one of the batches, likewise."""

    batch: int
    state: str
    key: str
    version: int
    data: msgspec.Raw
    ttl: timedelta | None
    class_version: int


def _batch(number: int, member: Member) -> SmallBatch:
    claim, effects, row, _ = member
    last_offset, last_timestamp, last_crc = columns_of(effects.last)
    return SmallBatch(
        number,
        claim.group,
        claim.partition.topic,
        claim.partition.partition,
        claim.epoch,
        claim.token,
        claim.next_offset,
        claim.sequence,
        row.next_offset,
        row.sequence,
        effects.emitted_through,
        last_offset,
        last_timestamp,
        last_crc,
        row.kind,
        row.applied,
        row.skipped,
        row.parked,
        row.dead,
    )


def _states(number: int, effects: Effects) -> list[SmallState]:
    return [
        SmallState(number, state, key, version, msgspec.Raw(raw), kept.ttl, kept.version)
        for state, rows in effects.states.items()
        for kept in [effects.keeping[state]]
        for key, version, raw in rows
    ]


_encode = msgspec.json.Encoder().encode


def _json(rows: Sequence[msgspec.Struct]) -> str:
    return _encode(rows).decode()
