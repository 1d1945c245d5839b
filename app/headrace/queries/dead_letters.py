"""`GET /dead-letters`: what was given up on, and how much of it for which error."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from headrace.database.pool import Row
from headrace.dead_letters import shown
from headrace.dead_letters.search import Filter, Place, find, groups, read, unknown
from headrace.http.database import connection, json_response
from headrace.http.guard import require
from headrace.http.openapi import Responses, problem
from headrace.http.problems import Problem, not_found
from headrace.http.runtime_of import runtime_of

State = Literal["open", "decided", "all"]
_IS_OPEN: dict[State, bool | None] = {"open": True, "decided": False, "all": None}


def add_routes(router: APIRouter) -> None:
    """Add the routes."""
    permitted = [Depends(require("read"))]
    wrong: Responses = {422: problem("Wrong parameters.")}
    missing: Responses = {404: problem("No such dead letter."), **wrong}

    @router.get("/dead-letters", summary="List dead letters", dependencies=permitted, responses=wrong)
    async def get_dead_letters(
        request: Request,
        wanted: Annotated[Filter, Depends(filter_of_query)],
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
    ) -> Response:
        """Return this service's dead letters, the newest first. `next` is the cursor of the following page, or null."""
        after = Place(*parse_cursor(cursor, Place)) if cursor is not None else None
        async with connection(request) as postgres:
            rows = await find(postgres, wanted, after, limit + 1)
        page = rows[:limit]
        following = cursor_of(Place(page[-1]["created_at"], page[-1]["id"])) if len(rows) > limit else None
        return json_response({"dead_letters": [summary_of(row, wanted.service) for row in page], "next": following})

    @router.get("/dead-letters/groups", summary="Count dead letters by error", dependencies=permitted, responses=wrong)
    async def get_groups(
        request: Request,
        wanted: Annotated[Filter, Depends(filter_of_query)],
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> Response:
        """Return how many dead letters have the same subscription, reason, type, handler and class of error.

        The largest group comes first; `total` counts the letters of all groups.
        """
        async with connection(request) as postgres:
            rows = await groups(postgres, wanted, limit)
        shown_groups = [shown.group(row, short(row["subscription"], wanted.service)) for row in rows]
        return json_response({"groups": shown_groups, "total": rows[0]["total"] if rows else 0})

    @router.get("/dead-letters/{id}", summary="Read a dead letter", dependencies=permitted, responses=missing)
    async def get_dead_letter(request: Request, id: UUID) -> Response:
        """Return one dead letter with the record as it was, what was made of it, and who did what and why."""
        service = runtime_of(request).registry.service
        async with connection(request) as postgres:
            row = await read(postgres, id, service)
        if row is None:
            raise not_found(unknown(id))
        return json_response(summary_of(row, service) | shown.record(row))


def filter_of_query(
    request: Request,
    subscription: str | None = None,
    type: str | None = None,
    key: str | None = None,
    reason: str | None = None,
    error_type: Annotated[str | None, Query(description="The class of the error, such as KeyError.")] = None,
    handler: str | None = None,
    since: Annotated[datetime | None, Query(description="Given up at this time or later.")] = None,
    until: Annotated[datetime | None, Query(description="Given up before this time.")] = None,
    state: State = "open",
) -> Filter:
    """Return which dead letters of this service a query means; a time without a zone is in UTC."""
    return Filter(
        runtime_of(request).registry.service,
        subscription,
        type,
        key,
        reason,
        error_type,
        handler,
        aware(since),
        aware(until),
        _IS_OPEN[state],
    )


def aware(moment: datetime | None) -> datetime | None:
    """Return the moment in UTC, which it is taken to be in if it names no zone. Raises: Problem 422 (no such time)."""
    if moment is None:
        return None
    try:
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise _wrong(f"{moment} is no time that can be compared.") from None


def short(group: str, service: str | None) -> str:
    """Return a subscription's name within its service."""
    return group.removeprefix(f"{service}.")


def summary_of(row: Row, service: str | None) -> dict[str, Any]:
    """Return what a list shows of a dead letter."""
    return shown.summary(row, short(row["subscription"], service))


def cursor_of(place: tuple[Any, ...]) -> str:
    """Return the place as text for a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def parse_cursor(cursor: str, place: type[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the place of a cursor. Raises: Problem 422 (it is not one of `cursor_of`)."""
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=place)
        return tuple(aware(each) if isinstance(each, datetime) else each for each in cast("tuple[Any, ...]", found))
    except (ValueError, OverflowError, binascii.Error, msgspec.DecodeError):
        raise _wrong("the cursor is not one of this list; take `next` of the page before.") from None


def _wrong(detail: str) -> Problem:
    return Problem(422, "parameters", "The request's parameters are wrong", detail)
