"""The routes of states: how many keys each has, what is kept for them, one as the last committed batch left it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from headrace import sql
from headrace.database.pool import Row
from headrace.handlers.subscription import Subscription
from headrace.http.database import connection, json_response, subscription_of
from headrace.http.guard import require
from headrace.http.openapi import problem
from headrace.http.problems import not_found
from headrace.http.runtime_of import runtime_of
from headrace.queries.waiting import WAIT_SECONDS, After, Wait, wait_for
from headrace.state.codec import StateType
from headrace.state.hand import count, keys


def add_routes(router: APIRouter) -> None:
    """Add the routes."""

    @router.get(
        "/state/{subscription}",
        summary="Count the keys of states",
        dependencies=[Depends(require("read"))],
        responses={404: problem("No such subscription."), 422: problem("Wrong parameters.")},
    )
    async def get_states(request: Request, subscription: str) -> Response:
        """Return how many keys each state of a subscription has, and the size of their JSON."""
        declared = subscription_of(runtime_of(request), subscription)
        async with connection(request) as postgres:
            rows = {row["state"]: row for row in await count(postgres, declared.group)}
        sizes = [(name, rows.get(name)) for name in sorted(declared.states)]
        counted = [
            {"state": name, "keys": row["keys"] if row else 0, "size": row["size"] if row else "0 bytes"}
            for name, row in sizes
        ]
        return json_response({"states": counted})

    @router.get(
        "/state/{subscription}/{state}",
        summary="List a state",
        dependencies=[Depends(require("read"))],
        responses={404: problem("No such subscription or state."), 422: problem("Wrong parameters.")},
    )
    async def get_keys(
        request: Request,
        subscription: str,
        state: str,
        cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> Response:
        """Return keys in their order, with what is kept for each. `next` is the cursor of the page behind, or null."""
        declared = subscription_of(runtime_of(request), subscription)
        kept = state_of(declared, state)
        after = None if cursor is None else cursor.replace("\x00", "")
        async with connection(request) as postgres:
            rows = await keys(postgres, declared.group, state, after, limit + 1)
        page = [
            {"key": row["key"], "version": row["version"], "data": msgspec.Raw(current(kept, row).encode())}
            for row in rows[:limit]
        ]
        return json_response({"states": page, "next": page[-1]["key"] if len(rows) > limit else None})

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
        kept = state_of(declared, state)
        unknown = not_found(f"no event with the key {key!r} has made a state {state!r} in {subscription!r} yet.")
        if "\x00" in key:
            raise unknown  # a text of Postgres holds no NUL, so no state has such a key
        await wait_for(request, declared, after, wait)
        async with connection(request) as postgres:
            row = await postgres.fetchrow(sql.state.READ_AS_TEXT, declared.group, state, key)
        if row is None:
            raise unknown
        headers = {"Headrace-Version": str(row["version"]), "Cache-Control": "no-store"}
        return Response(current(kept, row), headers=headers, media_type="application/json")


def state_of(declared: Subscription, name: str) -> StateType:
    """Return the state of the name. Raises: Problem 404."""
    if name not in declared.states:
        known = ", ".join(sorted(declared.states)) or "none"
        raise not_found(f"the subscription {declared.name!r} has no state {name!r}; it has: {known}.")
    return declared.states[name]


def current(kept: StateType, row: Row) -> str:
    """Return the JSON of a row as its class has it now; a row that the class cannot read is shown as it is."""
    data: str = row["data"]
    if row["class_version"] == kept.keeping.version:
        return data
    try:
        return kept.write(kept.load(data.encode(), row["class_version"])[0]).decode()
    except ValueError:
        return data
