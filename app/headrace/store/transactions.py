"""Whose transaction the event store works in: a route's, a handler's batch, or that of a SQLAlchemy session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.handlers.inject import Transaction
from headrace.log.ports import NewRecord
from headrace.outbox.rows import Append, new_row, write
from headrace.outbox.transaction import OutboxTransaction, translated


class Place(Protocol):
    """Where SQL runs, and what is published behind its commit."""

    @property
    def cause(self) -> Envelope | None:
        """The event that is being handled; None elsewhere."""

    async def fetch(self, query: str, *arguments: Any) -> Sequence[Any]: ...

    async def publish(self, records: Sequence[NewRecord], appends: Sequence[Append]) -> None: ...


Open = Callable[[], AbstractAsyncContextManager[Place]]
"""Opens what one call of the store works in."""


class RoutePlace:
    """The transaction of `events.transaction()`, and of a route's `Outbox`."""

    cause = None

    def __init__(self, tx: OutboxTransaction, max_bytes: int) -> None:
        self._tx = tx
        self._max_bytes = max_bytes

    async def fetch(self, query: str, *arguments: Any) -> Sequence[Any]:
        """Return the rows. Raises: StateUnavailableError, and what Postgres refuses."""
        with translated():
            rows: Sequence[Any] = await self._tx.connection.fetch(query, *arguments)
        return rows

    async def publish(self, records: Sequence[NewRecord], appends: Sequence[Append]) -> None:
        """Write the rows right before the commit, with what the transaction emits, if their events are stored then.

        A savepoint takes them back with what it appended. Written now, they would keep other transactions of their
        buckets waiting, and two that append to one key and emit for the other's would meet in a deadlock.
        """
        rows = [new_row(record, self._max_bytes) for record in records]
        self._tx.appends.update(enumerate(appends, len(self._tx.rows)))
        self._tx.rows += rows


class BatchPlace:
    """The transaction of a handler's batch."""

    def __init__(self, tx: Transaction, service: str, max_bytes: int) -> None:
        self._tx = tx
        self._service = service
        self._max_bytes = max_bytes
        self.cause = tx.envelope

    async def fetch(self, query: str, *arguments: Any) -> Sequence[Any]:
        """Return the rows."""
        return await self._tx.fetch(query, *arguments)

    async def publish(self, records: Sequence[NewRecord], appends: Sequence[Append]) -> None:
        """Write the rows now, so that a savepoint takes them back with what a failing handler did."""
        rows = [new_row(record, self._max_bytes) for record in records]
        self._tx.written_slots |= await write(self._tx.connection, self._service, rows)


class SessionPlace:
    """The transaction of a SQLAlchemy AsyncSession; the rows are objects of it, written by its next flush."""

    cause = None

    def __init__(self, session: Any, add: Callable[[NewRecord], object]) -> None:
        self._session = session
        self._add = add

    async def fetch(self, query: str, *arguments: Any) -> Sequence[Any]:
        """Return the rows."""
        connection = await self._session.connection()
        result = await connection.exec_driver_sql(query, arguments)
        rows: Sequence[Any] = result.mappings().all() if result.returns_rows else ()
        return rows

    async def publish(self, records: Sequence[NewRecord], appends: Sequence[Append]) -> None:
        """Add the rows to the session."""
        for record in records:
            self._add(record)


def always(place: Place) -> Open:
    """Return what opens nothing: the transaction is there, and its owner ends it."""

    @asynccontextmanager
    async def lend() -> AsyncIterator[Place]:
        yield place

    return lend


def place_of(tx: object, service: str, max_bytes: int, session_outbox: Callable[[Any], Any]) -> Place:
    """Return where the store works in somebody's transaction. Raises: ConfigurationError (it is none)."""
    if isinstance(tx, OutboxTransaction):
        return RoutePlace(tx, max_bytes)
    if isinstance(tx, Transaction):
        return BatchPlace(tx, service, max_bytes)
    if hasattr(tx, "connection") and hasattr(tx, "add"):
        return SessionPlace(tx, session_outbox(tx).add)
    raise ConfigurationError(
        f"events.store() takes the transaction of `events.transaction()`, a route's Outbox, a handler's Transaction or "
        f"SQLAlchemy's AsyncSession, not a {type(tx).__name__}; with asyncpg write "
        "`async with events.transaction(connection) as tx`."
    )
