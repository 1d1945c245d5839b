"""`/dead-letters`: what was given up on, and a person's decision about it."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from headrace.database.pool import Row
from headrace.dead_letters.decisions import PAST, Decision, Filter, Place, Refused, decide, find, read, unknown
from headrace.dead_letters.shown import record, summary
from headrace.http.database import connection, json_response
from headrace.http.guard import require
from headrace.http.openapi import Responses, problem
from headrace.http.problems import Problem, not_found
from headrace.http.runtime_of import runtime_of
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.dead_letters")

State = Literal["open", "decided", "all"]
_IS_OPEN: dict[State, bool | None] = {"open": True, "decided": False, "all": None}


def add_routes(router: APIRouter) -> None:
    """Add the routes."""
    permitted = [Depends(require("read"))]
    missing: Responses = {404: problem("No such dead letter."), 422: problem("Wrong parameters.")}

    @router.get(
        "/dead-letters",
        summary="List dead letters",
        dependencies=permitted,
        responses={422: problem("Wrong parameters.")},
    )
    async def get_dead_letters(
        request: Request,
        subscription: str | None = None,
        reason: str | None = None,
        state: State = "open",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
    ) -> Response:
        """Return this service's dead letters, the newest first. `next` is the cursor of the following page, or null."""
        service = runtime_of(request).registry.service
        wanted = Filter(service, subscription, reason, _IS_OPEN[state])
        async with connection(request) as postgres:
            rows = await find(postgres, wanted, _parse_cursor(cursor), limit + 1)
        page = rows[:limit]
        following = _cursor(page[-1]) if len(rows) > limit else None
        return json_response({"dead_letters": [_shown(row, service) for row in page], "next": following})

    @router.get(
        "/dead-letters/{id}",
        summary="Read a dead letter",
        dependencies=permitted,
        responses=missing,
    )
    async def get_dead_letter(request: Request, id: UUID) -> Response:
        """Return one dead letter with the record as it was: headers and value."""
        service = runtime_of(request).registry.service
        async with connection(request) as postgres:
            row = await read(postgres, id, service)
        if row is None:
            raise not_found(unknown(id))
        return json_response(_shown(row, service) | record(row))

    @router.post(
        "/dead-letters/{id}/{decision}",
        summary="Replay or discard a dead letter",
        responses=missing | {409: problem("It was decided before.")},
    )
    async def decide_dead_letter(
        request: Request, id: UUID, decision: Decision, who: Annotated[str, Depends(require("operate"))]
    ) -> Response:
        """Decide about one dead letter: `replay` runs it again, behind what its key holds now; `discard` drops it."""
        runtime = runtime_of(request)
        async with connection(request) as postgres:
            decided = await decide(postgres, id, decision, runtime.registry.service)
        if isinstance(decided, Refused):
            raise (
                Problem(409, "conflict", "Decided before", decided.why) if decided.is_known else not_found(decided.why)
            )
        logger.info("dead letter decided", id=str(id), decision=decision, by=who, **decided.facts)
        name = _short(decided.group, runtime.registry.service)
        runtime.metrics.dead_letters_decided_total.labels(subscription=name, decision=PAST[decision]).inc()
        return json_response({"id": id, "decision": decision})


def _short(group: str, service: str) -> str:
    return group.removeprefix(f"{service}.")


def _shown(row: Row, service: str) -> dict[str, Any]:
    return summary(row, _short(row["subscription"], service))


def _cursor(row: Row) -> str:
    return base64.urlsafe_b64encode(f"{row['created_at'].isoformat()} {row['id']}".encode()).decode()


def _parse_cursor(cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    try:
        created_at, _, last_id = base64.urlsafe_b64decode(cursor).decode().partition(" ")
        return Place(datetime.fromisoformat(created_at).astimezone(UTC), UUID(last_id))
    except (ValueError, OverflowError, binascii.Error):
        detail = "the cursor is not one of this list; take `next` of the page before."
        raise Problem(422, "parameters", "The request's parameters are wrong", detail) from None
