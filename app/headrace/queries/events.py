"""`GET /events/{id}`: what became of an event."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from headrace.explain.explain import explain
from headrace.explain.fate import shown
from headrace.explain.search import Asked
from headrace.http.database import connection, json_response
from headrace.http.guard import require
from headrace.http.openapi import Responses, problem
from headrace.http.runtime_of import runtime_of

Source = Annotated[str | None, Query(description="Its source, if it was not posted as plain JSON.")]
Type = Annotated[str | None, Query(description="Its type; without it, every declared one is tried.")]


def add_routes(router: APIRouter) -> None:
    """Add the routes. That with the id in its path comes behind `/events/stream`, which is no event.

    An id may hold a `/`, as those of streams do.
    """
    read = [Depends(require("read"))]
    responses: Responses = {
        422: problem("Wrong parameters."),
        503: problem("The database is away.", retry_after=True),
    }

    @router.get("/events", summary="Explain an event with any id", dependencies=read, responses=responses)
    async def find_event(
        request: Request,
        id: Annotated[str, Query(description="Its id.")],
        source: Source = None,
        type: Type = None,
    ) -> Response:
        """Return what `GET /events/{id}` does, also for an id that a path cannot hold, such as `stream` or `..`."""
        return await _explained(request, Asked(id, source, type))

    @router.get("/events/{id:path}", summary="Explain an event", dependencies=read, responses=responses)
    async def get_event(request: Request, id: str, source: Source = None, type: Type = None) -> Response:
        """Return, for each subscription: applied, parked behind what, dead letter and why, pending, or not known.

        `effect` says of an effect that its call was started, waits, is held, has ended, or has failed for good. All of
        it is found in what is kept anyway: lanes, dead letters, the newest ids of the ledger, calls, and the log. An
        event whose id is `stream` is found by `GET /events?id=stream`.
        """
        return await _explained(request, Asked(id, source, type))


async def _explained(request: Request, asked: Asked) -> Response:
    runtime = runtime_of(request)
    subscriptions = [runtime.registry.subscriptions[name] for name in sorted(runtime.registry.subscriptions)]
    async with runtime.searches:
        fates = await explain(lambda: connection(request), runtime.log, subscriptions, asked)
    return json_response(shown(asked.id, fates))
