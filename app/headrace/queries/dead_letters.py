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

from headrace.ingest.dependencies import runtime_of
from headrace.ingest.documents import Responses, problem
from headrace.log.stored import unpack_headers
from headrace.problems import Problem, not_found
from headrace.queries.database import Row, connection, json_response
from headrace.security.guard import require
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.dead_letters")

LIST = """
select id, subscription, topic, partition, "offset", "timestamp", key, source, event_id, type, reason, error, handler,
       attempts, created_at, decision, decided_at, settled_at
from headrace.dead_letter
where ($1::text is null or subscription = $1) and ($2::text is null or reason = $2)
  and ($3::boolean is null or (decision is null) = $3)
  and ($4::timestamptz is null or (created_at, id) < ($4, $5::uuid))
order by created_at desc, id desc limit $6
"""

ONE = "select * from headrace.dead_letter where id = $1"

DECIDE = """
update headrace.dead_letter set decision = $2, decided_at = now() where id = $1 and decision is null
returning subscription, topic, partition, "offset", reason, event_id, source
"""

State = Literal["open", "decided", "all"]
Decision = Literal["replay", "discard"]
_IS_OPEN: dict[State, bool | None] = {"open": True, "decided": False, "all": None}
_PAST = {"replay": "replayed", "discard": "discarded"}


def add_routes(router: APIRouter) -> None:
    """Add the routes."""
    read = [Depends(require("read"))]
    missing: Responses = {404: problem("No such dead letter."), 422: problem("Wrong parameters.")}

    @router.get(
        "/dead-letters",
        summary="List dead letters",
        dependencies=read,
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
        """Return dead letters, the newest first. `next` is the cursor of the following page, null at the end."""
        created_at, last_id = _parse_cursor(cursor)
        filters = [_text(subscription), _text(reason)]
        async with connection(request) as postgres:
            rows = await postgres.fetch(LIST, *filters, _IS_OPEN[state], created_at, last_id, limit + 1)
        page = rows[:limit]
        following = _cursor(page[-1]) if len(rows) > limit else None
        return json_response({"dead_letters": [summary(row) for row in page], "next": following})

    @router.get(
        "/dead-letters/{id}",
        summary="Read a dead letter",
        dependencies=read,
        responses=missing,
    )
    async def get_dead_letter(request: Request, id: UUID) -> Response:
        """Return one dead letter with the record as it was: headers and value."""
        async with connection(request) as postgres:
            row = await postgres.fetchrow(ONE, id)
        if row is None:
            raise _unknown(id)
        return json_response(summary(row) | record(row))

    @router.post(
        "/dead-letters/{id}/{decision}",
        summary="Replay or discard a dead letter",
        responses=missing | {409: problem("It was decided before.")},
    )
    async def decide(
        request: Request, id: UUID, decision: Decision, who: Annotated[str, Depends(require("operate"))]
    ) -> Response:
        """Decide about one dead letter: `replay` runs it again, behind what its key holds now; `discard` lets it go."""
        async with connection(request) as postgres:
            row = await postgres.fetchrow(DECIDE, id, decision)
            if row is None:
                raise _refused(id, await postgres.fetchrow(ONE, id))
        logger.info("dead letter decided", id=str(id), decision=decision, by=who, **dict(row))
        decided = runtime_of(request).metrics.dead_letters_decided_total
        decided.labels(subscription=row["subscription"], decision=_PAST[decision]).inc()
        return json_response({"id": id, "decision": decision})


def _refused(id: UUID, row: Row | None) -> Problem:
    if row is None:
        return _unknown(id)
    detail = f"the dead letter {id} was {_PAST[row['decision']]} at {row['decided_at'].isoformat()}."
    return Problem(409, "conflict", "Decided before", detail)


def _unknown(id: UUID) -> Problem:
    return not_found(f"there is no dead letter {id}.")


def _text(value: str | None) -> str | None:
    """Postgres refuses a NUL in a text, and nothing is named so: a character that no name has stands for it."""
    return value.replace("\x00", "\ufffd") if value is not None else None


def summary(row: Row) -> dict[str, Any]:
    """Return what a list shows. `key` and other bytes are text where they are UTF-8, else `..._base64` holds them."""
    return {
        "id": row["id"],
        "subscription": row["subscription"],
        "topic": row["topic"],
        "partition": row["partition"],
        "offset": row["offset"],
        "timestamp": datetime.fromtimestamp(row["timestamp"] / 1000, UTC),
        **_bytes("key", row["key"]),
        "source": row["source"],
        "event_id": row["event_id"],
        "type": row["type"],
        "reason": row["reason"],
        "error": row["error"],
        "handler": row["handler"],
        "attempts": row["attempts"],
        "created_at": row["created_at"],
        "decision": row["decision"],
        "decided_at": row["decided_at"],
        "settled_at": row["settled_at"],
    }


def record(row: Row) -> dict[str, Any]:
    """Return what a single dead letter shows besides: the record as it was."""
    headers = unpack_headers(row["headers"])
    return {
        **_bytes("record_key", row["record_key"]),
        **_bytes("value", row["value"]),
        "headers": [{"name": name, **_bytes("value", value)} for name, value in headers],
    }


def _bytes(name: str, value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(value).decode()}


def _cursor(row: Row) -> str:
    return base64.urlsafe_b64encode(f"{row['created_at'].isoformat()} {row['id']}".encode()).decode()


def _parse_cursor(cursor: str | None) -> tuple[datetime | None, UUID | None]:
    if cursor is None:
        return None, None
    try:
        created_at, _, last_id = base64.urlsafe_b64decode(cursor).decode().partition(" ")
        return datetime.fromisoformat(created_at), UUID(last_id)
    except (ValueError, binascii.Error):
        detail = "the cursor is none of ours; take `next` of the page before."
        raise Problem(422, "parameters", "The request's parameters are wrong", detail) from None
