"""`GET /state/{subscription}/{state}/{key}`: one state as the last committed batch left it."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from headrace import sql
from headrace.http.database import connection, subscription_of
from headrace.http.guard import require
from headrace.http.openapi import problem
from headrace.http.problems import not_found
from headrace.http.runtime_of import runtime_of
from headrace.queries.waiting import WAIT_SECONDS, After, Wait, wait_for


def add_routes(router: APIRouter) -> None:
    """Add the route."""

    @router.get(
        "/state/{subscription}/{state}/{key:path}",
        summary="Read a state",
        dependencies=[Depends(require("read"))],
        responses={
            404: problem("No such subscription, state or key."),
            409: problem("What `after` names waits in a lane."),
            422: problem("Wrong parameters."),
        },
    )
    async def get_state(
        request: Request,
        subscription: str,
        state: str,
        key: str,
        after: After = None,
        wait: Wait = WAIT_SECONDS,
    ) -> Response:
        """Return the state as JSON. `{state}` is its class's name in lower case; `Headrace-Version` counts changes."""
        declared = subscription_of(runtime_of(request), subscription)
        states = declared.states
        if state not in states:
            known = ", ".join(sorted(states)) or "none"
            raise not_found(f"the subscription {subscription!r} has no state {state!r}; it has: {known}.")
        unknown = not_found(f"no event with the key {key!r} has made a state {state!r} in {subscription!r} yet.")
        if "\x00" in key:
            raise unknown  # a text of Postgres holds no NUL, so no state has such a key
        await wait_for(request, declared, after, wait)
        async with connection(request) as postgres:
            row = await postgres.fetchrow(sql.state.READ_AS_TEXT, declared.group, state, key)
        if row is None:
            raise unknown
        data = row["data"]
        if row["class_version"] != states[state].keeping.version:
            data = states[state].write(states[state].load(data.encode(), row["class_version"])[0]).decode()
        headers = {"Headrace-Version": str(row["version"]), "Cache-Control": "no-store"}
        return Response(data, headers=headers, media_type="application/json")
