"""What a person does with dead letters, over HTTP and on the command line alike: find, read, decide; and their end."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from headrace import sql
from headrace.database.pool import Connection, Row
from headrace.log.stored import plain

EXPIRED_AT_ONCE = 10_000
"""Rows deleted by one statement, so that none locks rows for long."""

Decision = Literal["replay", "discard"]
PAST: dict[Decision, str] = {"replay": "replayed", "discard": "discarded"}


class Filter(NamedTuple):
    """Which dead letters are meant; None means all."""

    service: str | None = None
    """Those of this service's subscriptions."""
    subscription: str | None = None
    """Those of a subscription: its name (`wallets`) or its group (`shop.wallets`)."""
    reason: str | None = None
    is_open: bool | None = None
    """True: those without a decision; False: those with one."""


class Place(NamedTuple):
    """Where a page ended: the last dead letter that it showed."""

    created_at: datetime
    id: UUID


class Decided(NamedTuple):
    """The decision is kept; the owner of the partition acts on it."""

    decision: Decision
    group: str
    facts: dict[str, Any]
    """What the server's log says of it: subscription, position, reason, event."""


class Refused(NamedTuple):
    """Nothing was decided; `why` is a sentence for people."""

    why: str
    is_known: bool
    """True if the dead letter exists and was decided before."""


async def find(connection: Connection, wanted: Filter, after: Place | None, limit: int) -> list[Row]:
    """Return dead letters, the newest first, from behind the place. Raises: asyncpg's errors."""
    created_at, last_id = after or (None, None)
    service, subscription, reason, is_open = wanted
    names = (_held(subscription), _held(reason))
    return await connection.fetch(sql.dead_letter.LIST, service, *names, is_open, created_at, last_id, limit)


async def read(connection: Connection, identity: UUID, service: str | None = None) -> Row | None:
    """Return one dead letter with its record; None if there is none, or if it is of another service."""
    return await connection.fetchrow(sql.dead_letter.READ, identity, service)


async def decide(
    connection: Connection, identity: UUID, decision: Decision, service: str | None = None
) -> Decided | Refused:
    """Decide about one dead letter; a decision is taken once."""
    row = await connection.fetchrow(sql.dead_letter.DECIDE, identity, decision, service)
    if row is not None:
        return Decided(decision, row["subscription"], dict(row))
    known = await read(connection, identity, service)
    if known is None:
        return Refused(unknown(identity), is_known=False)
    if known["decision"] is None:  # its replay was taken back in this very moment
        return Refused(f"the dead letter {identity} is being changed; ask again.", is_known=True)
    past, at = PAST[known["decision"]], known["decided_at"].isoformat()
    return Refused(f"the dead letter {identity} was {past} at {at}.", is_known=True)


def unknown(identity: UUID) -> str:
    """Return the sentence for a dead letter that does not exist."""
    return f"there is no dead letter {identity}."


async def expire(connection: Connection, days: int) -> int:
    """Delete the dead letters that were settled more than `days` days ago; return how many.

    Open ones stay, and so does a replay that no owner has carried out. Each step is a statement of its own: call it
    outside of a transaction. Cancel: safe.
    """
    deleted = 0
    while True:
        step = int((await connection.execute(sql.dead_letter.EXPIRE, days, EXPIRED_AT_ONCE)).rpartition(" ")[2])
        deleted += step
        if step < EXPIRED_AT_ONCE:
            return deleted


def _held(name: str | None) -> str | None:
    """Return a name as a query can ask for it: Postgres refuses a NUL, and nothing that it holds is named so."""
    return plain(name) if name is not None else None
