"""Gives a transaction with an outbox to a FastAPI route; it commits before the answer is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from headrace.database.failures import CLIENT_ERRORS, classify
from headrace.errors import StateUnavailableError
from headrace.outbox.transaction import OutboxTransaction
from headrace.publishing.dependency import answered, platform_of


async def route_transaction(connection: HTTPConnection) -> AsyncIterator[OutboxTransaction]:
    """Yield a transaction of the route's application; an exception of the route rolls it back."""
    with answered():
        async with platform_of(connection).transaction() as tx:
            try:
                yield tx
            except CLIENT_ERRORS as error:
                # What the route's own SQL meets, and no OSError of other code: a connection that it has to elsewhere.
                failure = classify(error)
                if isinstance(failure, StateUnavailableError):
                    raise failure from error
                raise


Outbox = Annotated[OutboxTransaction, Depends(route_transaction, scope="function")]
"""`async def place(order: Order, tx: Outbox)`: commits when the route has returned and before its answer is sent. If
the commit fails, the client gets no success: 503 if Postgres is away, also under the route's own SQL."""
