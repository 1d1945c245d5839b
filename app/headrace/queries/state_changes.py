"""`PUT` and `DELETE` of a state: what an operator changes, noted with who did it and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from headrace.errors import ConfigurationError
from headrace.handlers.subscription import Subscription
from headrace.http.body import read_body
from headrace.http.database import connection, json_response, subscription_of
from headrace.http.guard import require
from headrace.http.openapi import Responses, problem
from headrace.http.problems import Problem
from headrace.http.runtime_of import runtime_of
from headrace.queries.states import state_of
from headrace.sagas.kept import SAGA_STATE
from headrace.state.hand import Act, Place, change
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.state")

Operator = Annotated[str, Depends(require("operate"))]
Why = Annotated[str | None, Query(description="The reason; it is kept with the change.")]

_PATH = "/state/{subscription}/{state}/{key:path}"
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


def add_routes(router: APIRouter) -> None:
    """Add the routes."""
    refused: Responses = {
        404: problem("No such subscription or state."),
        409: problem("The subscription never ran, there is no such key to delete, or the state is a saga's."),
        422: problem("The body is no state of the class."),
    }

    @router.put(_PATH, summary="Write a state", responses=refused, openapi_extra=_BODY)
    async def put_state(
        request: Request, subscription: str, state: str, key: str, who: Operator, why: Why = None
    ) -> Response:
        """Write the whole state, whatever it was, for as long as its class says; the body is its JSON.

        The owner of the key's partition claims it again, and goes on with what is there now.
        """
        runtime = runtime_of(request)
        declared = subscription_of(runtime, subscription)
        kept = state_of(declared, state)
        body = await read_body(request, runtime.settings.ingest)
        try:
            data = kept.encode(kept.load(body)[0]).decode()
        except ValueError as error:
            detail = f"the body is no {kept.model.__name__}: {error}"
            raise Problem(422, "schema", "The data do not fit", detail) from error
        version = await _change(request, declared, Place(declared.group, state, key), data, Act(who, why))
        return json_response({"version": version})

    @router.delete(_PATH, status_code=204, summary="Delete a state", responses=refused)
    async def delete_state(
        request: Request, subscription: str, state: str, key: str, who: Operator, why: Why = None
    ) -> Response:
        """Delete the state: the key's next event begins with the first value of its class."""
        declared = subscription_of(runtime_of(request), subscription)
        state_of(declared, state)
        await _change(request, declared, Place(declared.group, state, key), None, Act(who, why))
        return Response(status_code=204)


async def _change(request: Request, declared: Subscription, place: Place, data: str | None, act: Act) -> int | None:
    if place.state == SAGA_STATE:
        raise _conflict("the state of a saga follows from its events, and is not changed by hand.")
    if "\x00" in place.key:
        raise _conflict("a key in Postgres holds no NUL, so no state has this one.")
    try:
        async with connection(request) as postgres:
            version = await change(postgres, place, data, act, declared.states[place.state].keeping)
    except ConfigurationError as error:
        raise _conflict(str(error)) from error
    logger.info("state changed", group=place.group, state=place.state, key=place.key, by=act.by, why=act.why)
    return version


def _conflict(detail: str) -> Problem:
    return Problem(409, "conflict", "Conflict", detail)
