"""`/subscriptions`: how far each is, and whether it is paused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from headrace import sql
from headrace.handlers.subscription import Subscription
from headrace.http.database import connection, json_response, subscription_of
from headrace.http.guard import require
from headrace.http.openapi import Responses, problem
from headrace.http.runtime_of import runtime_of
from headrace.queries.progress import read_progress
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.subscriptions")


def add_routes(router: APIRouter) -> None:
    """Add the routes."""
    read = [Depends(require("read"))]
    missing: Responses = {404: problem("No such subscription."), 422: problem("Wrong parameters.")}

    @router.get("/subscriptions", summary="List subscriptions", dependencies=read)
    async def get_subscriptions(request: Request) -> Response:
        """Return each subscription with its partitions: owner, epoch, next offset, lag, parked keys and events.

        `rewind` is the one that holds the subscription `paused`; if it is not `running`, its process has died and
        nothing was changed: rewind again, or resume. `outages` are the handlers that wait for the end of an outage, by
        the process that sees it.
        A partition that is `full` takes no further events, since too much of it is parked.
        `held_back` is the part of a lag that stands behind another producer's open transaction."""
        subscriptions = runtime_of(request).registry.subscriptions
        answer = await _progress(request, [subscriptions[name] for name in sorted(subscriptions)])
        return json_response({"subscriptions": answer})

    @router.get("/subscriptions/{name}", summary="Read a subscription", dependencies=read, responses=missing)
    async def get_subscription(request: Request, name: str) -> Response:
        """Return one subscription with its partitions."""
        answer = await _progress(request, [subscription_of(runtime_of(request), name)])
        return json_response(answer[0])

    @router.post("/subscriptions/{name}/{action}", summary="Pause or resume a subscription", responses=missing)
    async def steer(
        request: Request,
        name: str,
        action: Literal["pause", "resume"],
        who: Annotated[str, Depends(require("operate"))],
    ) -> Response:
        """Pause or resume the subscription in every process; a pause lets the transaction in flight finish.

        While the subscription is rewound it is held anyway: what you ask for counts when that has ended."""
        subscription = subscription_of(runtime_of(request), name)
        is_paused = action == "pause"
        async with connection(request) as postgres:
            await postgres.execute(sql.subscription.SET_PAUSED, subscription.group, is_paused)
        logger.info("subscription steered", subscription=name, action=action, by=who)
        return json_response({"name": name, "paused": is_paused})


async def _progress(request: Request, subscriptions: Sequence[Subscription]) -> list[dict[str, object]]:
    async with connection(request) as postgres:
        runtime = runtime_of(request)
        return await read_progress(postgres, runtime.log, subscriptions, runtime.settings.engine)
