"""`/sagas`: where each saga stands, what it knows, and how it came there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from headrace import sql
from headrace.http.database import connection, json_response
from headrace.http.guard import require
from headrace.http.openapi import Responses, problem
from headrace.http.problems import not_found
from headrace.http.runtime_of import runtime_of
from headrace.sagas.kept import ENDS, SAGA_STATE

if TYPE_CHECKING:
    from headrace.sagas.saga import Saga

LOOK_SECONDS = 0.1
"""Between two looks at a saga that a caller waits for."""
MOST_SECONDS = 30.0

Status = Literal["running", "compensating", "completed", "compensated", "timed_out"]


def add_routes(router: APIRouter) -> None:
    """Add the routes."""
    read = [Depends(require("read"))]
    missing: Responses = {404: problem("No such saga, or no such key."), 422: problem("Wrong parameters.")}

    @router.get("/sagas", summary="List declared sagas", dependencies=read)
    async def get_sagas(request: Request) -> Response:
        """Return each declared saga: how many are open, the age of the oldest, its Mermaid state diagram."""
        answer = []
        async with connection(request) as postgres:
            for name, saga in sorted(runtime_of(request).registry.sagas.items()):
                row = await postgres.fetchrow(sql.saga.OPEN, saga.subscription.group)
                answer.append({"saga": name, **row, "diagram": saga.diagram})
        return json_response({"sagas": answer})

    @router.get("/sagas/{saga}", summary="List sagas", dependencies=read, responses=missing)
    async def list_sagas(
        request: Request,
        saga: str,
        status: Annotated[Status | None, Query(description="Only sagas that stand so.")] = None,
        after: Annotated[str | None, Query(description="`next` of the page before.", max_length=512)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> Response:
        """Return where sagas stand, by key. `next` is the `after` of the following page, null at the end."""
        group = _saga_of(request, saga).subscription.group
        async with connection(request) as postgres:
            rows = await postgres.fetch(
                sql.saga.LIST, group, status, (after or "").replace("\x00", "") or None, limit + 1
            )
        page = [dict(row) for row in rows[:limit]]
        following = page[-1]["key"] if len(rows) > limit else None
        return json_response({"sagas": page, "next": following})

    @router.get("/sagas/{saga}/{key:path}", summary="Read a saga", dependencies=read, responses=missing)
    async def get_saga(
        request: Request,
        saga: str,
        key: str,
        wait: Annotated[float, Query(ge=0, le=MOST_SECONDS, description="Seconds to wait for its end.")] = 0.0,
    ) -> Response:
        """Return one saga: where it stands, its data, its history. With `wait` when it has ended, or so much later."""
        group = _saga_of(request, saga).subscription.group
        until = time.monotonic() + wait
        while True:
            row = await _read(request, group, key)
            if (row is not None and row["status"] in ENDS) or time.monotonic() >= until:
                break
            await asyncio.sleep(LOOK_SECONDS)
        if row is None:
            raise not_found(f"no event has started a saga {saga!r} with the key {key!r} yet.")
        return json_response(_shown(row))


def _saga_of(request: Request, name: str) -> Saga[Any]:
    sagas = runtime_of(request).registry.sagas
    if name not in sagas:
        raise not_found(f"there is no saga {name!r}; declared are: {', '.join(sorted(sagas)) or 'none'}.")
    return sagas[name]


async def _read(request: Request, group: str, key: str) -> Mapping[str, Any] | None:
    if "\x00" in key:
        return None  # a text of Postgres holds no NUL, so no saga has such a key
    async with connection(request) as postgres:
        row: Mapping[str, Any] | None = await postgres.fetchrow(sql.saga.READ, group, key, SAGA_STATE)
    return row


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = msgspec.json.decode(row["data"])
    return {**row, "awaited": kept["awaited"], "data": kept["data"], "history": kept["history"]}
