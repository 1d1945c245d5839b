"""Postgres as the routes use it: rows, or a 503 problem."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headrace.ingest.dependencies import runtime_of
from headrace.problems import Problem, unavailable
from headrace.telemetry.logging import get_logger

if TYPE_CHECKING:
    from headrace.runtime import Runtime

logger = get_logger("headrace.queries")

ACQUIRE_SECONDS = 5.0
"""How long a query waits for a connection; the pool belongs to the batches first."""

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)
Row = asyncpg.Record


@asynccontextmanager
async def connection(request: Request) -> AsyncIterator[Any]:
    """Yield a connection. Raises: Problem 503 where the database is away, not connected yet, or too busy."""
    pool = runtime_of(request).pool
    if pool is None:
        raise unavailable("the database is not connected yet; ask again.")
    try:
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as acquired:
            yield acquired
    except (*AWAY, asyncpg.InsufficientResourcesError) as error:
        logger.warning("query failed", path=request.url.path, error=str(error), kind=type(error).__name__)
        raise unavailable("the database is away or busy; ask again.") from error


def known_subscription(runtime: Runtime, name: str) -> None:
    """Raise Problem 404 where no subscription has the name."""
    if name not in runtime.registry.subscriptions:
        known = ", ".join(sorted(runtime.registry.subscriptions)) or "none"
        raise Problem(404, "not-found", "Not found", f"there is no subscription {name!r}; declared are: {known}.")


def json_response(content: object) -> Response:
    """Return the content as JSON; times as RFC 3339, ids as text."""
    return Response(msgspec.json.encode(content), media_type="application/json")
