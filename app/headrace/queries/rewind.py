"""`/subscriptions/{name}/rewind`: a subscription goes back, and applies a part of the log again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from headrace import sql
from headrace.errors import ConfigurationError, HandlerError, SchemaRegistryError, TransportError
from headrace.http.body import body_of, read_json
from headrace.http.database import connection, json_response, subscription_of
from headrace.http.guard import require
from headrace.http.openapi import Responses, problem
from headrace.http.problems import Problem, unavailable
from headrace.http.runtime_of import runtime_of
from headrace.queries.dead_letters import aware
from headrace.rewind.plan import Target, make_plan
from headrace.rewind.rewind import rewind
from headrace.rewind.shown import plan_of
from headrace.state.hand import Act
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.rewind")

MOST_READS = 1_000_000
"""Offsets that are read within a request, to make states again; a command has all the time that it needs."""
HISTORY_ROWS = 100


class Rewind(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where to go back to: one of `beginning`, `offset` and `time`."""

    beginning: bool = False
    offset: Annotated[int, msgspec.Meta(ge=0, description="Of one partition.")] | None = None
    time: Annotated[datetime, msgspec.Meta(description="When the log took in the first event.")] | None = None
    partition: Annotated[int, msgspec.Meta(ge=0, description="Only this one.")] | None = None
    effects: Annotated[bool, msgspec.Meta(description="Start the effects of its events again.")] = False
    own_sql: Annotated[bool, msgspec.Meta(description="The handlers' own SQL may run again.")] = False
    why: Annotated[str, msgspec.Meta(max_length=1_000, description="Kept with who did it.")] | None = None
    confirmed: Annotated[bool, msgspec.Meta(description="Do it; without, the answer is what would be done.")] = False


def add_routes(router: APIRouter) -> None:
    """Add the routes. They come before `/subscriptions/{name}/{action}`, whose path they have as well."""
    answers: Responses = {
        404: problem("No such subscription."),
        409: problem("It cannot go back there; `detail` says why, and what to do. Nothing was changed."),
        422: problem("Wrong parameters."),
        503: problem("The database or the log is away.", retry_after=True),
    }

    @router.post(
        "/subscriptions/{name}/rewind",
        summary="Rewind a subscription",
        responses=answers,
        openapi_extra=body_of(Rewind, required=True),
    )
    async def rewind_subscription(
        request: Request, name: str, who: Annotated[str, Depends(require("operate"))]
    ) -> Response:
        """Say what going back would change; with `confirmed`, do it: all of it in one transaction, or nothing.

        States are as they were at that place, and what follows is applied again with today's handlers. The events that
        they emit again have their first ids; effects are not started again unless you ask for it. The subscription is
        paused while earlier states are made.
        """
        body = await read_json(request, runtime_of(request).settings.ingest, Rewind)
        if [body.beginning, body.offset is not None, body.time is not None].count(True) != 1:
            raise Problem(
                422, "parameters", "The request's parameters are wrong", "give one of beginning, offset and time."
            )
        return json_response(await _rewind(request, name, body, who))

    @router.get(
        "/subscriptions/{name}/moves",
        summary="List how a subscription's claims were moved",
        dependencies=[Depends(require("read"))],
        responses={404: answers[404], 422: answers[422]},
    )
    async def get_moves(request: Request, name: str) -> Response:
        """Return who rewound the subscription, and where topics were accepted from another log, the latest first."""
        subscription = subscription_of(runtime_of(request), name)
        async with connection(request) as postgres:
            rows = await postgres.fetch(sql.claim_move.LIST, subscription.group, HISTORY_ROWS)
        moves = [{**dict(row), "changed": msgspec.json.decode(row["changed"])} for row in rows]
        return json_response({"moves": moves})


async def _rewind(request: Request, name: str, body: Rewind, who: str) -> dict[str, Any]:
    runtime = runtime_of(request)
    subscription, log = subscription_of(runtime, name), runtime.log
    if log is None:
        raise unavailable("the log is not connected yet; ask again.")
    target = Target(body.offset, aware(body.time), body.partition)
    try:
        async with connection(request) as postgres:
            plan = await make_plan(postgres, log, subscription, target, effects=body.effects, own_sql=body.own_sql)
            if not body.confirmed:
                return {"done": False, **plan_of(plan)}
            if plan.reads > MOST_READS:
                raise ConfigurationError(
                    f"{plan.reads:,} offsets have to be read for the states of then, which takes longer than a request "
                    f"should; use the command: headrace rewind MODULE:APP {name}."
                )
            act = Act(who, body.why)
            done = await rewind(postgres, log, runtime.registry, subscription, runtime.settings, plan, act)
    except (ConfigurationError, HandlerError) as error:
        raise Problem(409, "rewind", "It cannot be rewound", str(error)) from error
    except SchemaRegistryError as error:
        raise unavailable(str(error)) from error
    except TransportError as error:
        raise unavailable(f"the log does not answer: {error}") from error
    logger.info("subscription rewound", subscription=name, by=who, why=body.why, events=plan.events, **done.changed)
    return {"done": True, **plan_of(plan), "changed": dict(done.changed), "paused": done.is_paused}
