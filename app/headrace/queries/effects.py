"""`/subscriptions/{name}/effects`: the calls to the outside that are not done, and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from headrace.effects.listing import Filter, find, retry
from headrace.http.database import connection, json_response, subscription_of
from headrace.http.guard import require
from headrace.http.openapi import Responses, problem
from headrace.http.runtime_of import runtime_of
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.effects")

Key = Annotated[str | None, Query(description="Only the calls of this key.")]


def add_routes(router: APIRouter) -> None:
    """Add the routes."""
    missing: Responses = {404: problem("No such subscription."), 422: problem("Wrong parameters.")}

    @router.get(
        "/subscriptions/{name}/effects",
        summary="List effects",
        dependencies=[Depends(require("read"))],
        responses=missing,
    )
    async def get_effects(
        request: Request,
        name: str,
        key: Key = None,
        failed: Annotated[bool, Query(description="Only calls that have failed and wait.")] = False,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> Response:
        """Return the first calls to the outside that are not done: since when, and why each that has failed waits."""
        subscription = subscription_of(runtime_of(request), name)
        async with connection(request) as postgres:
            found = await find(postgres, Filter(subscription.group, key, failed), limit)
        return json_response({"effects": [each | {"subscription": name} for each in found]})

    @router.post("/subscriptions/{name}/effects/retry", summary="Retry effects now", responses=missing)
    async def retry_effects(
        request: Request, name: str, who: Annotated[str, Depends(require("operate"))], key: Key = None
    ) -> Response:
        """Make the failed calls of a key, or all, without waiting any longer. Attempts are counted as ever."""
        subscription = subscription_of(runtime_of(request), name)
        async with connection(request) as postgres:
            count = await retry(postgres, Filter(subscription.group, key))
        logger.info("effects retried", subscription=name, effects=count, by=who)
        return json_response({"name": name, "effects": count})
