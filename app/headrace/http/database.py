"""Lends the routes a connection to Postgres: they get rows, or a 503 problem."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headrace.database.failures import classify
from headrace.errors import DataRefusedError, StateUnavailableError
from headrace.handlers.subscription import Subscription
from headrace.http.problems import Problem, not_found, unavailable
from headrace.http.runtime_of import runtime_of
from headrace.telemetry.logging import get_logger

if TYPE_CHECKING:
    from headrace.runtime import Runtime

logger = get_logger("headrace.queries")

ACQUIRE_SECONDS = 5.0
"""A query waits at most this long for a connection, since the batches need the pool more."""


@asynccontextmanager
async def connection(request: Request) -> AsyncIterator[Any]:
    """Yield a connection.

    Raises: Problem 503 (the database is away, not connected yet, or too busy), 422 (a value that it cannot hold).
    """
    pool = runtime_of(request).pool
    if pool is None:
        raise unavailable("the database is not connected yet; ask again.")
    try:
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as acquired:
            yield acquired
    except Exception as error:
        failure = classify(error)
        if isinstance(failure, DataRefusedError):
            raise Problem(422, "parameters", "The request's parameters are wrong", str(failure)) from error
        if not isinstance(failure, StateUnavailableError):
            raise
        logger.warning("query failed", path=request.url.path, error=str(error), kind=type(error).__name__)
        raise unavailable("the database is away or busy; ask again.") from error


def subscription_of(runtime: Runtime, name: str) -> Subscription:
    """Return the declared subscription of the name. Raises: Problem 404."""
    subscription = runtime.registry.subscriptions.get(name)
    if subscription is None:
        known = ", ".join(sorted(runtime.registry.subscriptions)) or "none"
        raise not_found(f"there is no subscription {name!r}; declared are: {known}.")
    return subscription


def json_response(content: object) -> Response:
    """Return the content as JSON; times as RFC 3339, ids as text."""
    return Response(msgspec.json.encode(content), media_type="application/json")
