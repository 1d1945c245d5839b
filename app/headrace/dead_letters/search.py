"""Finds dead letters: a list, one with its record, and how many there are of each error."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from headrace import sql
from headrace.database.pool import Connection, Row
from headrace.log.stored import plain


class Filter(NamedTuple):
    """Which dead letters are meant; None means all."""

    service: str | None = None
    """Those of this service's subscriptions."""
    subscription: str | None = None
    """Those of a subscription: its name (`wallets`) or its group (`shop.wallets`)."""
    type: str | None = None
    key: str | None = None
    reason: str | None = None
    error_type: str | None = None
    """The class of the error, such as `KeyError`."""
    handler: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Those that came into being from `since` on and before `until`."""
    is_open: bool | None = None
    """True: those without a decision; False: those with one."""

    @property
    def arguments(self) -> tuple[object, ...]:
        """The filter as the queries take it: a key as bytes, and no NUL, which no text of Postgres holds."""
        return (
            self.service,
            _held(self.subscription),
            _held(self.type),
            self.key.encode("utf-8", "replace") if self.key is not None else None,
            _held(self.reason),
            _held(self.error_type),
            _held(self.handler),
            self.since,
            self.until,
            self.is_open,
        )


class Place(NamedTuple):
    """Where a page ended: the last dead letter that it showed."""

    created_at: datetime
    id: UUID


async def find(connection: Connection, wanted: Filter, after: Place | None, limit: int) -> list[Row]:
    """Return dead letters, the newest first, from behind the place. Raises: asyncpg's errors."""
    return await connection.fetch(sql.dead_letter.LIST, *wanted.arguments, *(after or (None, None)), limit)


async def groups(connection: Connection, wanted: Filter, limit: int) -> list[Row]:
    """Return how many letters have the same subscription, reason, type, handler and class of error, most first.

    Each row has the `total` of all groups, and the text of its newest error. Raises: asyncpg's errors.
    """
    return await connection.fetch(sql.dead_letter.GROUPS, *wanted.arguments, limit)


async def read(connection: Connection, identity: UUID, service: str | None = None) -> Row | None:
    """Return one dead letter with its record; None if there is none, or if it is of another service."""
    return await connection.fetchrow(sql.dead_letter.READ, identity, service)


def unknown(identity: UUID) -> str:
    """Return the sentence for a dead letter that does not exist."""
    return f"there is no dead letter {identity}."


def _held(name: str | None) -> str | None:
    """Return a name as a query can ask for it: Postgres refuses a NUL, and nothing that it holds is named so."""
    return plain(name) if name is not None else None
