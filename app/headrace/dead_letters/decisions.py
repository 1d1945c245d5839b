"""What a person decides about dead letters, one or many, over HTTP and on the command line alike; and their end."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from headrace import sql
from headrace.database.pool import Connection, Row
from headrace.dead_letters.search import Filter, read, unknown
from headrace.log.stored import plain

EXPIRED_AT_ONCE = 10_000
"""Rows that one statement ends, so that none locks rows for long."""

Decision = Literal["replay", "discard"]
PAST = {"replay": "replayed", "discard": "discarded", "rewind": "taken out by a rewind"}


class Act(NamedTuple):
    """Who does something to a dead letter, and why; both are kept with it."""

    by: str
    why: str | None = None

    @property
    def arguments(self) -> tuple[str, str | None]:
        """The act as the queries take it."""
        return plain(self.by, 200), plain(self.why) if self.why else None


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


class Progress(NamedTuple):
    """How far a decision about many has come: when it began, and the last letter that it decided about."""

    begun_at: datetime
    group: str
    partition: int
    topic: str
    offset: int
    id: UUID


class Step(NamedTuple):
    """What one step of a decision about many did."""

    decided: Counter[str]
    """Letters by group."""
    next: Progress | None
    """Where the next step continues; None if nothing is left."""


async def decide(
    connection: Connection, identity: UUID, decision: Decision, act: Act, service: str | None = None
) -> Decided | Refused:
    """Decide about one dead letter; a decision is taken once."""
    row = await connection.fetchrow(sql.dead_letter.DECIDE, identity, decision, service, *act.arguments)
    if row is not None:
        return Decided(decision, row["subscription"], dict(row))
    return refused(await read(connection, identity, service), identity)


async def decide_many(
    connection: Connection, wanted: Filter, decision: Decision, act: Act, after: Progress | None, limit: int
) -> Step:
    """Decide about the next `limit` open letters that the filter means, in the order of the log.

    A letter is met at most once, also if its replay fails or is refused in the meantime: what comes into being after
    the first step is left out. Whoever was interrupted may begin anew, since decided letters are not met again.
    Cancel: safe; the step is done or not.
    """
    begun_at, *place = after or (None,) * 6
    rows = await connection.fetch(
        sql.dead_letter.DECIDE_MANY, *wanted.arguments, begun_at, *place, limit, decision, *act.arguments
    )
    following = Progress(*rows[-1]) if len(rows) == limit else None
    return Step(Counter(row["subscription"] for row in rows), following)


def refused(known: Row | None, identity: UUID) -> Refused:
    """Return why an open dead letter of this id was not found."""
    if known is None:
        return Refused(unknown(identity), is_known=False)
    if known["decision"] is None:  # its replay was taken back in this very moment
        return Refused(f"the dead letter {identity} is being changed; ask again.", is_known=True)
    past, at = PAST[known["decision"]], known["decided_at"].isoformat()
    by = f" by {known['decided_by']}" if known["decided_by"] else ""
    return Refused(f"the dead letter {identity} was {past} at {at}{by}.", is_known=True)


async def expire(connection: Connection, days: int) -> int:
    """Let the dead letters expire that were settled more than `days` days ago; return how many.

    Open ones stay, and so does a replay that no owner has carried out. Of an event that was discarded, or edited before
    its replay, the decision stays without the record, since a rebuild and a rewind read the log by it. Each step is a
    statement of its own: call it outside of a transaction. Cancel: safe.
    """
    expired = 0
    while True:
        step: int = await connection.fetchval(sql.dead_letter.EXPIRE, days, EXPIRED_AT_ONCE)
        expired += step
        if step < EXPIRED_AT_ONCE:
            return expired
