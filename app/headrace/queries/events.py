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
from headrace.http.openapi import problem
from headrace.http.runtime_of import runtime_of


def add_routes(router: APIRouter) -> None:
    """Add the route. It comes behind `/events/stream`, which is no event.

    An id may hold a `/`, as those of streams do.
    """

    @router.get(
        "/events/{id:path}",
        summary="Explain an event",
        dependencies=[Depends(require("read"))],
        responses={
            422: problem("Wrong parameters."),
            503: problem("The database is away.", retry_after=True),
        },
    )
    async def get_event(
        request: Request,
        id: str,
        source: Annotated[str | None, Query(description="Its source, if it was not posted as plain JSON.")] = None,
        type: Annotated[str | None, Query(description="Its type; without it, every declared one is tried.")] = None,
    ) -> Response:
        """Return, for each subscription: applied, parked behind what, dead letter and why, pending, or not known.

        `effect` says of an effect that its call was started, waits, is held, has ended, or has failed for good. All of
        it is found in what is kept anyway: lanes, dead letters, the newest ids of the ledger, calls, and the log.
        """
        runtime = runtime_of(request)
        subscriptions = [runtime.registry.subscriptions[name] for name in sorted(runtime.registry.subscriptions)]
        fates = await explain(lambda: connection(request), runtime.log, subscriptions, Asked(id, source, type))
        return json_response(shown(id, fates))
