"""`POST /dead-letters/{decision}`, and of one letter: a person edits, replays or discards what was given up on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from headrace.dead_letters.decisions import PAST, Act, Decision, Progress, Refused, decide, decide_many
from headrace.dead_letters.edits import Edit, edit
from headrace.dead_letters.search import Filter
from headrace.errors import EventError, SchemaError, SchemaRegistryError
from headrace.http.body import body_of, read_json
from headrace.http.database import connection, json_response
from headrace.http.guard import require
from headrace.http.openapi import Responses, problem
from headrace.http.problems import Problem, not_found, unavailable
from headrace.http.runtime_of import runtime_of
from headrace.queries.dead_letters import aware, cursor_of, parse_cursor, short
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.dead_letters")

Why = Annotated[str, msgspec.Meta(max_length=1_000, description="Kept with the letter, for those who ask.")] | None


class Wanted(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which open dead letters are meant; an empty object means all of them."""

    subscription: str | None = None
    type: str | None = None
    key: str | None = None
    reason: str | None = None
    error_type: str | None = None
    handler: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class DecideMany(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Replay or discard the open dead letters that match, step by step."""

    where: Wanted
    why: Why = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000, description="The most letters of this step.")] = 500
    cursor: Annotated[str | None, msgspec.Meta(description="`next` of the step before.")] = None


class DecideOne(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Replay or discard one dead letter."""

    why: Why = None


class EditOne(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What shall be replayed instead: `data` of the event, or the `value` of a record that is no CloudEvent."""

    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    value: str | None = None
    value_base64: bytes | None = None
    why: Why = None


_MISSING: Responses = {
    404: problem("No such dead letter."),
    409: problem("It was decided before."),
    422: problem("Wrong parameters."),
}
_ONE = "/dead-letters/{id}/"
Operator = Annotated[str, Depends(require("operate"))]


def add_routes(router: APIRouter) -> None:
    """Add the routes."""
    _add_edit(router)  # before the decisions, since `edit` is no decision
    _add_decisions(router)


def _add_decisions(router: APIRouter) -> None:
    @router.post(
        "/dead-letters/{decision}",
        summary="Replay or discard the dead letters that match",
        responses={422: problem("Wrong parameters.")},
        openapi_extra=body_of(DecideMany, required=True),
    )
    async def decide_dead_letters(request: Request, decision: Decision, who: Operator) -> Response:
        """Decide about open dead letters, at most `limit` of them, in the order of the log.

        `next` is the cursor of the following step, or null at the end. If you lose it, begin anew: what was decided is
        not met again. What fails again after its replay is left for the next time.
        """
        runtime = runtime_of(request)
        body = await read_json(request, runtime.settings.ingest, DecideMany)
        after = Progress(*parse_cursor(body.cursor, Progress)) if body.cursor is not None else None
        wanted = _filter(body.where, runtime.registry.service)
        async with connection(request) as postgres:
            step = await decide_many(postgres, wanted, decision, Act(who, body.why), after, body.limit)
        for group, count in step.decided.items():
            _count(runtime, group, decision, count)
        decided = step.decided.total()
        logger.info("dead letters decided", decision=decision, by=who, letters=decided, why=body.why)
        following = cursor_of(step.next) if step.next is not None else None
        return json_response({"decision": decision, "decided": decided, "next": following})

    @router.post(
        _ONE + "{decision}",
        summary="Replay or discard a dead letter",
        responses=_MISSING,
        openapi_extra=body_of(DecideOne, required=False),
    )
    async def decide_dead_letter(request: Request, id: UUID, decision: Decision, who: Operator) -> Response:
        """Decide about one dead letter: `replay` runs it again, behind what its key holds now; `discard` drops it."""
        runtime = runtime_of(request)
        body = await read_json(request, runtime.settings.ingest, DecideOne)
        async with connection(request) as postgres:
            decided = await decide(postgres, id, decision, Act(who, body.why), runtime.registry.service)
        if isinstance(decided, Refused):
            raise _problem_of(decided)
        logger.info("dead letter decided", id=str(id), decision=decision, by=who, why=body.why, **decided.facts)
        _count(runtime, decided.group, decision, 1)
        return json_response({"id": id, "decision": decision})


def _add_edit(router: APIRouter) -> None:
    @router.post(
        _ONE + "edit",
        summary="Edit a dead letter",
        responses=_MISSING,
        openapi_extra=body_of(EditOne, required=True),
    )
    async def edit_dead_letter(request: Request, id: UUID, who: Operator) -> Response:
        """Keep other data for the replay of an open dead letter: the same event, mended. The record stays as it was.

        The data are checked against the event type. Source, type, id and key cannot be changed.
        """
        runtime = runtime_of(request)
        body = await read_json(request, runtime.settings.ingest, EditOne)
        wanted = _edit_of(body)
        async with connection(request) as postgres:
            try:
                edited = await edit(postgres, id, wanted, Act(who, body.why), runtime.registry)
            except EventError as error:
                errors = {"errors": error.details} if isinstance(error, SchemaError) and error.details else {}
                raise _refused_edit(str(error), **errors) from error
            except SchemaRegistryError as error:
                raise unavailable(str(error)) from error
        if isinstance(edited, Refused):
            raise _problem_of(edited)
        logger.info("dead letter edited", id=str(id), by=who, why=body.why, **edited.facts)
        return json_response({"id": id, "edited": True})


def _filter(wanted: Wanted, service: str) -> Filter:
    times = {"since": aware(wanted.since), "until": aware(wanted.until)}
    return Filter(service, **(msgspec.structs.asdict(wanted) | times))


def _edit_of(body: EditOne) -> Edit:
    data = bytes(body.data) if isinstance(body.data, msgspec.Raw) else None
    value = body.value.encode("utf-8", "replace") if body.value is not None else body.value_base64
    if [data, body.value, body.value_base64].count(None) != 2:
        raise _refused_edit("give one of data, value and value_base64.")
    return Edit(data, value)


def _count(runtime: Any, group: str, decision: Decision, count: int) -> None:
    name = short(group, runtime.registry.service)
    runtime.metrics.dead_letters_decided_total.labels(subscription=name, decision=PAST[decision]).inc(count)


def _problem_of(refused: Refused) -> Problem:
    return Problem(409, "conflict", "Decided before", refused.why) if refused.is_known else not_found(refused.why)


def _refused_edit(detail: str, **members: Any) -> Problem:
    return Problem(422, "edit", "The edit cannot be replayed", detail, **members)
