"""Known paths are answered without FastAPI's preparations; nothing that a team puts in front of them is left out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from starlette.requests import Request, empty_receive, empty_send
from starlette.responses import PlainTextResponse, Response

from headrace.http.direct import DirectRequest, DirectRoute, serve_directly
from headrace.http.problems import not_found

TYPES = ("order.placed", "order.paid")


def refuse() -> None:
    """A team's own dependency."""
    raise HTTPException(403, "no")


async def test_known_paths_are_direct_and_others_are_not() -> None:
    """Who answers is the same function."""
    app = served()
    assert await ask(app, "/events") == (200, "direct -")
    assert await ask(app, "/events/order.paid") == (200, "direct order.paid")
    assert await ask(app, "/events/order.lost") == (200, "by FastAPI order.lost")
    assert await ask(app, "/events/order.paid", method="GET") == (405, None)
    assert app.openapi()["paths"].keys() == {"/events", "/events/{type}"}
    assert app.url_path_for("post_events") == "/events"


@pytest.mark.parametrize("options", [{"dependencies": [Depends(refuse)]}, {"max_body_size": 1}])
async def test_what_the_team_includes_with_the_routes_is_asked(options: dict[str, Any]) -> None:
    """A dependency refuses, and a body is too large."""
    status, _ = await ask(served(**options), "/events/order.paid")
    assert status in (403, 413)


async def test_dependencies_of_the_application_are_asked() -> None:
    """They count for every route."""
    assert (await ask(served(FastAPI(dependencies=[Depends(refuse)])), "/events"))[0] == 403


async def test_a_route_of_the_team_s_own_in_front_answers() -> None:
    """It was declared before the platform's."""
    app = FastAPI()

    @app.post("/events/order.paid")
    async def own() -> Response:
        return PlainTextResponse("own")

    served(app)
    assert await ask(app, "/events/order.paid") == (200, "own")
    assert await ask(app, "/events/order.placed") == (200, "direct order.placed")


async def test_a_host_in_front_leaves_all_to_fastapi() -> None:
    """Which route answers depends on the request."""
    app = FastAPI()
    app.host("events.example.com", PlainTextResponse("host"))
    served(app)
    assert await ask(app, "/events") == (200, "by FastAPI -")
    assert await ask(app, "/events", headers={"host": "events.example.com"}) == (200, "host")


async def test_a_prefix_and_a_mount_are_part_of_the_path() -> None:
    """The application serves the routes below them."""
    inner = served(prefix="/platform")
    outer = FastAPI()
    outer.mount("/inner", inner)
    assert await ask(inner, "/platform/events/order.paid") == (200, "direct order.paid")
    assert await ask(outer, "/inner/platform/events/order.paid") == (200, "direct order.paid")
    assert await ask(served(prefix="/{tenant}"), "/a/events/order.paid") == (200, "by FastAPI order.paid")


async def test_middleware_stays_in_front() -> None:
    """It sees the request, the route and the answer."""
    app, seen = FastAPI(), list[str]()

    @app.middleware("http")
    async def watch(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        seen.append(f"{request.scope['route'].path} {request.path_params} {response.status_code}")
        return response

    served(app)
    await ask(app, "/events/order.paid")
    assert seen == ["/events/{type:path} {'type': 'order.paid'} 200"]


async def test_whatever_goes_wrong_is_a_problem() -> None:
    """Of a refusal and of a fault."""
    app = served()
    assert await ask(app, "/events", headers={"raise": "not found"}) == (404, None)
    assert await ask(app, "/events", headers={"raise": "fault"}) == (500, None)


async def test_an_application_that_starts_twice_has_them_once() -> None:
    """A test's client starts it again."""
    app = served()
    before = len(app.router.routes)
    serve_directly(app, TYPES)
    assert len(app.router.routes) == before


def test_headers_are_found_as_starlette_finds_them() -> None:
    """Any case, the first of several, and a default."""
    raw = [(b"prefer", b"first"), (b"x-name", "é".encode("latin-1")), (b"prefer", b"second")]
    scope = {"type": "http", "headers": raw}
    ours, theirs = DirectRequest(scope, empty_receive, empty_send).headers, Request(scope).headers
    for name in ("prefer", "Prefer", "x-name", "missing"):
        assert ours.get(name) == theirs.get(name)
        assert ours.get(name, "default") == theirs.get(name, "default")
    assert ours.getlist("prefer") == ["first", "second"]
    assert ours["prefer"] == "first" and "missing" not in ours


def served(app: FastAPI | None = None, **options: Any) -> FastAPI:
    """An application that includes two direct routes."""
    router = APIRouter(route_class=DirectRoute)

    @router.post("/events")
    async def post_events(request: Request) -> Response:
        if request.headers.get("raise") == "not found":
            raise not_found("nothing is here")
        if request.headers.get("raise") == "fault":
            raise ValueError("a fault")
        return await answer(request, "-")

    @router.post("/events/{type:path}")
    async def post_data(request: Request, type: str) -> Response:
        return await answer(request, type)

    app = app or FastAPI()
    app.include_router(router, **options)
    serve_directly(app, TYPES)
    return app


async def answer(request: Request, text: str) -> Response:
    """Say who called."""
    await request.body()
    return PlainTextResponse(f"{'direct' if isinstance(request, DirectRequest) else 'by FastAPI'} {text}")


async def ask(app: FastAPI, path: str, method: str = "POST", **options: Any) -> tuple[int, str | None]:
    """Return the status, and the text of an answer that is no problem."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        response = await client.request(method, path, content=b"body" if method == "POST" else None, **options)
    return response.status_code, response.text if response.status_code == 200 else None
