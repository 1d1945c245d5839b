"""A transaction of a route's own: its SQL and the events that it emits commit together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from headrace.database.failures import classify, sqlstate_of
from headrace.database.pool import Connection, Pool
from headrace.errors import ConfigurationError, StateError, StateUnavailableError
from headrace.outbox.rows import Append, NewRow, Prepare, Wake, new_row, slot_of, write_kept
from headrace.publishing.publisher import AnyEvent
from headrace.timers.changes import Change, SetTimer, cancelling, due
from headrace.timers.store import write as write_timers

SUBSCRIPTION = "outbox"
"""What timers and dead letters of the outbox call it."""
_GIVEN_UP = "25P02"
"""The SQLSTATE of a statement in a transaction that has failed before."""
WakeTimers = Callable[[float], None]
"""Tells the relay that a timer was set which is due in so many seconds."""


def group_of(service: str) -> str:
    """Return the group under which timers and dead letters of a service's outbox are kept."""
    return f"{service}.{SUBSCRIPTION}"


class OutboxTransaction:
    """One transaction on `connection`, which is asyncpg's; what it emits is published after the commit, or never."""

    def __init__(self, connection: Connection, prepare: Prepare, max_bytes: int) -> None:
        self.connection = connection
        self._prepare = prepare
        self._max_bytes = max_bytes
        self.rows: list[NewRow] = []
        """What the commit writes into the outbox."""
        self.appends: dict[int, Append] = {}
        """Which of the rows the event store has appended, by their places."""
        self.timers: dict[int, list[Change]] = {}
        """What it does to timers, by slot."""
        self.is_over = False
        """True since its commit or rollback has begun."""

    def emit(
        self,
        event: AnyEvent,
        *,
        key: str | None = None,
        id: str | None = None,
        after: float | timedelta | None = None,
        at: datetime | None = None,
        name: str | None = None,
    ) -> str:
        """Publish the event behind the commit, or so long `after` it, or `at` a time; return its id.

        `key` overrides the key that the event type declares. `id` names the event: a second one of the same type and id
        has no second effect. The event is written as JSON at once: later changes of the object have no effect.
        A timer's `name` lets a later `emit` move it, and `cancel` take it back.
        Raises: ConfigurationError (not a declared event type; the transaction is over), SchemaError,
        RecordTooLargeError.
        """
        self._check_open("emit")
        later = due(after, at, name)
        checked = self._prepare(event, key=key, id=id)
        row = new_row(checked.record, self._max_bytes)
        if later is None:
            self.rows.append(row)
        else:
            key = (row.key or b"").decode()
            name = name or checked.envelope.id
            timer = SetTimer(checked.event_type.type, key, name, later, checked.record)
            self.timers.setdefault(row.slot, []).append(timer)
        return checked.envelope.id

    def cancel(self, model: type[object], key: str, name: str | None = None) -> None:
        """Cancel the timer of an event type and key that a route has set under this name, or all of them.

        Raises: ConfigurationError (no event type, a wrong name; the transaction is over).
        """
        self._check_open("cancel")
        cancelled = cancelling(model, key, name, call="cancel")
        self.timers.setdefault(slot_of(key.encode()), []).append(cancelled)

    def _check_open(self, call: str) -> None:
        if self.is_over:
            raise ConfigurationError(
                f"tx.{call}() was called when its transaction was over, so it would have no effect; call it inside of "
                "the block or the route, or open a transaction of its own with events.transaction()."
            )


@asynccontextmanager
async def in_transaction(
    service: str, tx: OutboxTransaction, wake: Wake, wake_timers: WakeTimers
) -> AsyncIterator[None]:
    """Run the block inside a transaction that ends with the rows of what it emitted.

    Raises: what the block raises, unchanged, after a rollback; StateUnavailableError if Postgres fails at the begin
    or in the commit, and then whether it committed is unknown; StateError if Postgres has given the transaction up.
    """
    connection = tx.connection
    transaction = connection.transaction()
    with translated():
        await transaction.start()
    try:
        yield
        tx.is_over = True
        with translated():
            if not (tx.rows or tx.timers):
                await connection.execute("select")  # Postgres answers the commit of a failed transaction as a success
            slots = await write_kept(connection, service, tx.rows, tx.appends)
            seconds = [
                await write_timers(connection, group_of(service), slot, tx.timers[slot]) for slot in sorted(tx.timers)
            ]
    except BaseException:
        tx.is_over = True
        with suppress(Exception):  # a lost connection has rolled back by itself
            await transaction.rollback()
        raise
    with translated():
        await transaction.commit()
    wake(slots)
    for each in seconds:
        if each is not None:
            wake_timers(each)


@contextmanager
def translated() -> Iterator[None]:
    """Raise a failure of Postgres as a StateError, and leave everything else as it is."""
    try:
        yield
    except Exception as error:
        if sqlstate_of(error) == _GIVEN_UP:
            raise StateError(
                "Postgres gave the transaction up and keeps nothing of it: a statement failed and the code went on; "
                "let the error pass, or run what may fail in a savepoint: async with tx.connection.transaction()."
            ) from error
        failure = classify(error)
        if isinstance(failure, StateUnavailableError) and failure is not error:
            raise failure from error
        raise


async def give_back(pool: Pool, connection: Any) -> None:
    """Give a connection back, whatever has become of its session: the pool makes another one in its place."""
    with suppress(StateError), translated():
        await pool.release(connection)
