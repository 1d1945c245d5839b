"""A transaction of a route's own: its SQL and the events that it emits commit together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from headrace.database.failures import classify
from headrace.database.pool import Connection
from headrace.errors import StateUnavailableError
from headrace.outbox.rows import NewRow, Prepare, Wake, new_row, write
from headrace.publishing.publisher import AnyEvent


class OutboxTransaction:
    """One transaction on `connection`, which is asyncpg's; what it emits is published after the commit, or never."""

    def __init__(self, connection: Connection, prepare: Prepare, max_bytes: int) -> None:
        self.connection = connection
        self._prepare = prepare
        self._max_bytes = max_bytes
        self.rows: list[NewRow] = []
        """What the commit writes into the outbox."""

    def emit(self, event: AnyEvent, *, key: str | None = None, id: str | None = None) -> str:
        """Publish the event behind the commit; return its id.

        `key` overrides the key that the event type declares. `id` names the event: a second one of the same type and id
        has no second effect. The event is written as JSON at once: later changes of the object have no effect.
        Raises: ConfigurationError (not a declared event type), SchemaError, RecordTooLargeError.
        """
        checked = self._prepare(event, key=key, id=id)
        self.rows.append(new_row(checked.record, self._max_bytes))
        return checked.envelope.id


@asynccontextmanager
async def in_transaction(service: str, tx: OutboxTransaction, wake: Wake) -> AsyncIterator[None]:
    """Run the block inside a transaction that ends with the rows of what it emitted.

    Raises: what the block raises, unchanged, after a rollback; StateUnavailableError if Postgres fails at the begin
    or in the commit, and then whether it committed is unknown.
    """
    connection = tx.connection
    transaction = connection.transaction()
    with translated():
        await transaction.start()
    try:
        yield
        with translated():
            slots = await write(connection, service, tx.rows)
    except BaseException:
        with suppress(Exception):  # a lost connection has rolled back by itself
            await transaction.rollback()
        raise
    with translated():
        await transaction.commit()
    wake(slots)


@contextmanager
def translated() -> Iterator[None]:
    """Raise a failure of Postgres as StateUnavailableError, and leave everything else as it is."""
    try:
        yield
    except Exception as error:
        failure = classify(error)
        if isinstance(failure, StateUnavailableError) and failure is not error:
            raise failure from error
        raise
