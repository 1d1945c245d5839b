"""The generated routes of a projection: `/orders?status=placed&sort=-total&after=now`, and `/orders/{order}`."""

# Annotations are evaluated at once: one of them names a class that is made for each projection.

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import TypeAdapter, ValidationError, create_model
from starlette.requests import Request
from starlette.responses import Response

from headrace.http.database import connection
from headrace.http.guard import require
from headrace.http.openapi import problem
from headrace.http.problems import ProblemRoute, not_found
from headrace.projections.projection import Projection
from headrace.queries.rows import asked_class, following, listing, one
from headrace.queries.waiting import WAIT_SECONDS, After, Wait, wait_for

HEADERS = {"Cache-Control": "no-store"}


def build_router(projection: Projection, prefix: str, dependencies: Sequence[Any] | None) -> APIRouter:
    """Return the routes. Raises: ConfigurationError (a column has the name of a parameter)."""
    table, name = projection.table, projection.name
    asked: Any = asked_class(projection)
    model: Any = table.model
    page: Any = create_model(f"{model.__name__}Page", rows=(list[model], ...), next=(str | None, None))
    pages, rows = TypeAdapter(page), TypeAdapter(model)
    router = APIRouter(
        prefix=prefix,
        tags=[name],
        route_class=ProblemRoute,
        dependencies=[Depends(require("read"))] if dependencies is None else dependencies,
        responses={
            409: problem("What `after` names waits in a lane."),
            422: problem("Wrong parameters."),
            503: problem("Postgres is away, or `after` was not reached in time.", retry_after=True),
        },
    )

    @router.get("", summary=f"List {name}", response_model=page)
    async def list_rows(request: Request, asked: Annotated[asked, Query()]) -> Response:
        """Return rows that match every filter, in an order, by pages: `next` is the `next` of the following one."""
        parameters: dict[str, Any] = dict(asked)
        await wait_for(request, projection, parameters["after"], parameters["wait"])
        query = listing(table, parameters)
        async with connection(request) as postgres:
            found = [table.row_of(row) for row in await postgres.fetch(query.statement, *query.arguments)]
        shown = found[: parameters["limit"]]
        more = following(table, parameters["sort"], shown[-1]) if len(found) > len(shown) else None
        answer = pages.validate_python({"rows": shown, "next": more})
        return Response(pages.dump_json(answer), headers=HEADERS, media_type="application/json")

    @router.get(
        "/" + "/".join(f"{{{each}}}" for each in table.key[:-1]) + ("/" if table.key[1:] else "")
        + f"{{{table.key[-1]}:path}}",
        summary=f"Read one of {name}",
        response_model=model,
        responses={404: problem("There is no such row.")},
        openapi_extra={"parameters": [_path_parameter(each, table.columns[each].adapter) for each in table.key]},
    )  # fmt: skip
    async def get_row(request: Request, after: After = None, wait: Wait = WAIT_SECONDS) -> Response:
        """Return one row by its key."""
        texts = [request.path_params[each] for each in table.key]
        unknown = not_found(f"{name} has no row with the key {'/'.join(texts)!r}.")
        try:
            key = [table.columns[each].checked(text) for each, text in zip(table.key, texts, strict=True)]
        except ValidationError:
            raise unknown from None
        if any("\x00" in text for text in texts):
            raise unknown
        await wait_for(request, projection, after, wait)
        query = one(table, [table.columns[each].dump(value) for each, value in zip(table.key, key, strict=True)])
        async with connection(request) as postgres:
            row = await postgres.fetchrow(query.statement, *query.arguments)
        if row is None:
            raise unknown
        answer = rows.validate_python(table.row_of(row))
        return Response(rows.dump_json(answer), headers=HEADERS, media_type="application/json")

    return router


def _path_parameter(name: str, adapter: TypeAdapter[Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": adapter.json_schema()}
