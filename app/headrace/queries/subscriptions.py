"""`/subscriptions`: how far each is, and whether it is paused."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from headrace.ingest.dependencies import runtime_of
from headrace.ingest.documents import Responses, problem
from headrace.queries.database import connection, json_response, known_subscription
from headrace.queries.progress import read_progress
from headrace.security.guard import require
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.subscriptions")

SET_PAUSED = """
insert into headrace.subscription (subscription, paused) values ($1, $2)
on conflict (subscription) do update set paused = excluded.paused, changed_at = now()
"""


def add_routes(router: APIRouter) -> None:
    """Add the routes."""
    read = [Depends(require("read"))]
    missing: Responses = {404: problem("No such subscription."), 422: problem("Wrong parameters.")}

    @router.get("/subscriptions", summary="List subscriptions", dependencies=read)
    async def get_subscriptions(request: Request) -> Response:
        """Return each subscription with its partitions: owner, epoch, next offset, lag, parked keys and events."""
        subscriptions = runtime_of(request).registry.subscriptions
        answer = await _progress(
            request, {subscriptions[n].group: subscriptions[n].topics for n in sorted(subscriptions)}
        )
        return json_response({"subscriptions": answer})

    @router.get("/subscriptions/{name}", summary="Read a subscription", dependencies=read, responses=missing)
    async def get_subscription(request: Request, name: str) -> Response:
        """Return one subscription with its partitions."""
        runtime = runtime_of(request)
        known_subscription(runtime, name)
        subscription = runtime.registry.subscriptions[name]
        answer = await _progress(request, {subscription.group: subscription.topics})
        return json_response(answer[0])

    @router.post("/subscriptions/{name}/{action}", summary="Pause or resume a subscription", responses=missing)
    async def steer(
        request: Request,
        name: str,
        action: Literal["pause", "resume"],
        who: Annotated[str, Depends(require("operate"))],
    ) -> Response:
        """Stop or go on applying events of the subscription, in every pod; what is in flight is finished first."""
        runtime = runtime_of(request)
        known_subscription(runtime, name)
        is_paused = action == "pause"
        async with connection(request) as postgres:
            await postgres.execute(SET_PAUSED, runtime.registry.subscriptions[name].group, is_paused)
        logger.info("subscription steered", subscription=name, action=action, by=who)
        return json_response({"name": name, "paused": is_paused})


async def _progress(request: Request, topics: dict[str, tuple[str, ...]]) -> list[dict[str, object]]:
    async with connection(request) as postgres:
        return await read_progress(postgres, runtime_of(request).log, topics)
