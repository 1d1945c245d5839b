"""Paths whose route is known when the application starts: they are looked up, and the route's function is called.

FastAPI asks one route after the other whether it fits, those of an included router twice. Then it opens two exit stacks
and looks for parameters in the path, the query, the headers and the cookies. For a small event all that costs as much
as to check it and to hand it to the log. A function that takes the request and texts of the path needs none of it.

What the application puts in front of its routes, its middleware, stays in front. FastAPI answers as before whatever is
not known (other methods, types that nobody declared), and everything if the team has included the routes with
dependencies or a limit of its own, or if a route of its own answers such a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import fastapi.routing
from fastapi import FastAPI
from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import BaseRoute, Match, Mount, NoMatchFound, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from headrace.http.problems import ProblemRoute

METHOD = "POST"


class DirectRoute(ProblemRoute):
    """A route of POST whose function takes the request and perhaps the text `type` of the path, and nothing else."""


def serve_directly(app: FastAPI, types: Iterable[str]) -> None:
    """Look up where the application serves its direct routes, for each of the types; called when it is complete."""
    routes = [route for route in app.router.routes if not isinstance(route, DirectPaths)]
    app.router.routes[:] = [*_direct(routes, list(types)), *routes]


class DirectPaths(BaseRoute):
    """The known paths of one direct route."""

    def __init__(self, route: DirectRoute, path_format: str, texts: Mapping[str, Mapping[str, str]]) -> None:
        """`path_format` is the route's path with its prefix, `texts` what it finds in each path."""
        self._route = route
        self._texts = texts
        self.path_format = path_format
        """FastAPI names its spans by it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Look the path up."""
        if scope["type"] == "http" and scope["method"] == METHOD:
            texts = self._texts.get(get_route_path(scope))
            if texts is not None:
                found = {"endpoint": self._route.endpoint, "route": self._route, "path_params": dict(texts)}
                return Match.FULL, found
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; whatever goes wrong, with a problem."""
        request = DirectRequest(scope, receive, send)
        response = await self._route.answered(request, self._route.endpoint(request, **scope["path_params"]))
        await response(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """Leave that to the route itself."""
        raise NoMatchFound(name, path_params)


class DirectRequest(Request):
    """A request whose headers are looked up, instead of searched each time."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self._headers = _IndexedHeaders(scope=scope)

    @property
    def headers(self) -> Headers:
        """The header fields; of one that is there several times, a look-up gives the first."""
        return self._headers


class _IndexedHeaders(Headers):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._first = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(self._list)}

    def get(self, key: str, default: Any = None) -> Any:
        return self._first.get(key.lower(), default)


def _direct(routes: Sequence[BaseRoute], types: Sequence[str]) -> Iterator[DirectPaths]:
    listed = getattr(fastapi.routing, "iter_route_contexts", None)
    contexts = list(listed(routes)) if listed is not None else []  # a FastAPI that cannot tell serves all itself
    for context in contexts:
        route = context.original_route
        if not isinstance(route, DirectRoute) or context.dependencies or context.max_body_size is not None:
            continue
        choices = [{"type": type} for type in types] if route.param_convertors else [{}]
        texts = {context.path_format.replace("{type}", each.get("type", "")): each for each in choices}
        known = {path: each for path, each in texts.items() if _answers(contexts, path) == (context, each)}
        yield DirectPaths(route, context.path_format, known)


def _answers(contexts: Iterable[Any], path: str) -> tuple[Any, dict[str, str]]:
    """Return what answers a request for the path, with the texts that it finds in it; (None, {}) if that depends."""
    scope = {"type": "http", "method": METHOD, "path": path, "root_path": "", "headers": [], "path_params": {}}
    for context in contexts:
        if not isinstance(context.original_route, Route | WebSocketRoute | Mount):
            break
        match, found = context.matches(scope)
        if match is Match.FULL:
            return context, found.get("path_params", {})
    return None, {}
