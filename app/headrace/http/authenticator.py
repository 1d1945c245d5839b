"""Asks a team's own dependency who a request comes from: `Headrace("shop", authenticate=Depends(verify))`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Depends
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends as DependsMark
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Message

from headrace.errors import ConfigurationError
from headrace.http.caller import Caller
from headrace.http.problems import Problem

FOUND = "headrace.caller"
_APPLICATIONS = ("starlette.exception_handlers", "fastapi_inner_astack", "fastapi_function_astack")
"""What the application's own handling of the request has put into the scope; the dependency's has its own."""


def unauthorised(detail: str) -> Problem:
    """Return the answer for a request that does not say who it comes from."""
    headers = {"WWW-Authenticate": 'Bearer realm="headrace"'}
    return Problem(401, "unauthorised", "Unauthorised", detail, headers=headers)


class Authenticator:
    """Calls the dependency as FastAPI does: with its own dependencies, in a route that nobody can reach."""

    def __init__(self, dependency: Any) -> None:
        """Raises: ConfigurationError (nothing that can be called)."""
        function: Callable[..., Any] | None = (
            dependency.dependency if isinstance(dependency, DependsMark) else dependency
        )
        if not callable(function):
            raise ConfigurationError("authenticate= takes Depends(function), whose function returns a Caller.")
        found = Depends(function)

        async def note(request: Request, caller: Any = found) -> Response:
            request.scope[FOUND].append(caller)
            return Response(status_code=204)

        self._route = APIRoute("/", note, methods=["GET"])

    async def identify(self, connection: HTTPConnection) -> Caller:
        """Return who asks. Raises: Problem (what the dependency raises; 401 if it returns None or misses something)."""
        found: list[Any] = []
        scope = {name: value for name, value in connection.scope.items() if name not in _APPLICATIONS}
        scope |= {"type": "http", "method": "GET", "path": "/", "path_params": {}, FOUND: found}
        try:
            async with AsyncExitStack() as stack:
                await self._route.handle(scope | {"fastapi_middleware_astack": stack}, _no_body, _no_answer)
        except RequestValidationError as error:
            missing = ", ".join(".".join(map(str, each["loc"])) for each in error.errors())
            raise unauthorised(f"the request does not say who it comes from: {missing}.") from error
        except Problem:
            raise
        except HTTPException as error:
            slug, title = ("forbidden", "Forbidden") if error.status_code == 403 else ("unauthorised", "Unauthorised")
            raise Problem(error.status_code, slug, title, str(error.detail), headers=error.headers) from error
        if found[0] is None:
            raise unauthorised("the caller is not known.")
        if not isinstance(found[0], Caller):
            raise TypeError(f"authenticate= returned {type(found[0]).__name__}; it returns a headrace.Caller or None.")
        return found[0]


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _no_answer(message: Message) -> None:
    """Send nothing: the platform's own route answers."""
