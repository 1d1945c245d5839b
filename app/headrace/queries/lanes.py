"""`/subscriptions/{name}/lanes`: the keys that wait for a retry, and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from headrace.http.database import connection, json_response, subscription_of
from headrace.http.guard import require
from headrace.http.openapi import Responses, problem
from headrace.http.problems import Problem, not_found
from headrace.http.runtime_of import runtime_of
from headrace.queries.lane_store import Filter, Place, find, parse_place, place_of, retry, shown
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.lanes")

Handler = Annotated[str | None, Query(description="Only keys whose first event this handler failed on.")]
ErrorType = Annotated[str | None, Query(description="Only keys whose first event failed so, such as KeyError.")]
Held = Annotated[bool | None, Query(description="true: only held keys; false: only those that are retried.")]


def add_routes(router: APIRouter) -> None:
    """Add the routes."""
    missing: Responses = {404: problem("No such subscription, or no such key."), 422: problem("Wrong parameters.")}

    @router.get(
        "/subscriptions/{name}/lanes",
        summary="List lanes",
        dependencies=[Depends(require("read"))],
        responses=missing,
    )
    async def get_lanes(
        request: Request,
        name: str,
        key: Annotated[str | None, Query(description="Only the lane of this key.")] = None,
        handler: Handler = None,
        error_type: ErrorType = None,
        held: Held = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
    ) -> Response:
        """Return the parked keys: their first event, its last error, its runs so far and when it runs next.

        A key that is `held` runs next when an operator retries it.
        `next` is the cursor of the following page, null at the end.
        """
        subscription = subscription_of(runtime_of(request), name)
        after, wanted = _parse_cursor(cursor), Filter(subscription.group, None, key, handler, error_type, held)
        async with connection(request) as postgres:
            rows = await find(postgres, wanted, after, limit + 1)
        page = rows[:limit]
        following = place_of(page[-1]).cursor if len(rows) > limit else None
        return json_response({"lanes": [shown(row, name) for row in page], "next": following})

    @router.post("/subscriptions/{name}/lanes/retry", summary="Retry lanes now", responses=missing)
    async def retry_lanes(
        request: Request,
        name: str,
        who: Annotated[str, Depends(require("operate"))],
        key: Annotated[str | None, Query(description="Only the lane of this key.")] = None,
        handler: Handler = None,
        error_type: ErrorType = None,
        held: Held = None,
    ) -> Response:
        """Run the parked events of the lanes that match, or of all, without waiting any longer.

        Attempts are counted as ever; the event at the head of a held key has all its attempts again.
        """
        subscription = subscription_of(runtime_of(request), name)
        async with connection(request) as postgres:
            count = await retry(postgres, Filter(subscription.group, None, key, handler, error_type, held))
        if key is not None and not count:
            raise not_found(f"the key {key[:200]!r} has no lane in the subscription {name!r}.")
        logger.info("lanes retried", subscription=name, lanes=count, by=who)
        return json_response({"name": name, "lanes": count})


def _parse_cursor(cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    try:
        return parse_place(cursor)
    except ValueError:
        detail = "the cursor is not one of this list; take `next` of the page before."
        raise Problem(422, "parameters", "The request's parameters are wrong", detail) from None
