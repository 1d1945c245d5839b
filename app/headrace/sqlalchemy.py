"""A handler's SQLAlchemy session: `session: BatchSession` works in the batch's own transaction.

```python
@journal.on(OrderPlaced)
async def write_down(event: OrderPlaced, session: BatchSession) -> None:
    session.add(Order(customer=event.customer, total=event.total))
```
The session is bound to the very connection that the batch commits, so what it writes commits with states, emits and
progress, or not at all. Each event has a session of its own, inside a savepoint that is released when the handler has
returned. `commit()` in a handler releases it and begins another one.

How: one engine for the process, whose pool has no connections of its own. It adapts the connection of the transaction
that a context variable names, and closing it is left to the platform. The dialect is SQLAlchemy's own, but sets no type
codecs, since the connection goes back to the platform's pool; JSON arrives as text either way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import cache
from typing import Annotated, Any

from fastapi import Depends
from sqlalchemy import NullPool, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection, PGDialect_asyncpg
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from headrace.handlers.inject import Transaction

__all__ = ["BatchSession", "session"]

_current: ContextVar[Transaction] = ContextVar("headrace.transaction")


class BorrowedConnection(AsyncAdapt_asyncpg_connection):
    """The batch's connection, which the platform returns to its pool."""

    __slots__ = ()

    def close(self) -> None:
        """Roll back to the savepoint if there is one, and leave the connection open."""
        self.rollback()  # type: ignore[no-untyped-call] # SQLAlchemy gives its adapters no types

    def terminate(self) -> None:
        """Leave the connection open."""


class BorrowingDialect(PGDialect_asyncpg):
    """SQLAlchemy's dialect for asyncpg, without what it sets on a new connection."""

    supports_statement_cache = True

    def on_connect(self) -> None:
        """Do nothing."""


@cache
def _engine() -> AsyncEngine:
    """Return the engine that works on the connection of the current transaction."""
    registry.register("postgresql.headrace", __name__, BorrowingDialect.__name__)

    def lend() -> Any:
        return BorrowedConnection(engine.dialect.dbapi, _current.get().connection)  # type: ignore[no-untyped-call]

    engine = create_async_engine("postgresql+headrace://", creator=lend, poolclass=NullPool)

    @event.listens_for(engine.sync_engine, "handle_error")
    def note(context: ExceptionContext) -> None:
        if (cause := context.original_exception.__cause__) is not None:
            _current.get().note(cause)

    return engine


@asynccontextmanager
async def session(tx: Transaction) -> AsyncIterator[AsyncSession]:
    """Open a session in the batch's transaction: `async with session(tx) as db`; the end of the block flushes it."""
    token = _current.set(tx)
    try:
        async with _engine().connect() as connection, AsyncSession(connection, expire_on_commit=False) as opened:
            yield opened
            await opened.commit()
    finally:
        _current.reset(token)


async def batch_session(tx: Transaction) -> AsyncIterator[AsyncSession]:
    """Yield the handler's session."""
    async with session(tx) as opened:
        yield opened


BatchSession = Annotated[AsyncSession, Depends(batch_session)]
"""`session: BatchSession`: what it writes commits with the batch."""
