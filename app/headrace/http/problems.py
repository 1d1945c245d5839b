"""Answers refused requests with `application/problem+json` (RFC 9457), on every route of the platform.

`type` is a stable reference, `/problems/<slug>`: programs branch on it, people read `detail`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.http")

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499


class Problem(HTTPException):
    """An answer that refuses a request. `members` are RFC 9457 extension members, JSON-ready.

    If a route of the team's own raises it, FastAPI answers as for any HTTPException: with the status and the detail.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **members: object,
    ) -> None:
        super().__init__(status, detail, headers)
        self.slug = slug
        self.title = title
        self.members = members

    def response(self, instance: str) -> Response:
        """Return the answer; `instance` is the request's path."""
        body = {
            "type": f"/problems/{self.slug}",
            "title": self.title,
            "status": self.status_code,
            "detail": self.detail,
            "instance": instance,
            **self.members,
        }
        return Response(msgspec.json.encode(body), self.status_code, self.headers, MEDIA_TYPE)


def too_large(detail: str) -> Problem:
    """Return the answer for more than is taken at once."""
    return Problem(413, "too-large", "Too large", detail)


def not_found(detail: str) -> Problem:
    """Return the answer for something that does not exist."""
    return Problem(404, "not-found", "Not found", detail)


def unavailable(detail: str, retry_after_seconds: int = 2) -> Problem:
    """Return the answer for an outage of the platform: the same request may be sent again."""
    return Problem(503, "unavailable", "Unavailable", detail, headers={"Retry-After": str(retry_after_seconds)})


class ProblemRoute(APIRoute):
    """A route whose every refusal is a problem: its own, FastAPI's (405, 422), and an unexpected exception (500).

    The platform's router therefore answers alike in any application, and needs no exception handlers there.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            return await self.answered(request, handle(request))

        return answer

    async def answered(self, request: Request, answering: Awaitable[Response]) -> Response:
        """Return the answer, or the problem that came instead."""
        try:
            return await answering
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            return _problem_of(error, request).response(request.url.path)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a wrong method with a problem as well."""
        try:
            await super().handle(scope, receive, send)
        except HTTPException as error:
            await _from_http(error).response(scope["path"])(scope, receive, send)


def _problem_of(error: Exception, request: Request) -> Problem:
    if isinstance(error, RequestValidationError):
        errors = [{"location": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
        detail = f"{errors[0]['location']}: {errors[0]['message']}"
        return Problem(422, "parameters", "The request's parameters are wrong", detail, errors=errors)
    if isinstance(error, HTTPException):
        return _from_http(error)
    logger.error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return Problem(
        500, "internal", "Internal error", "the request failed by a fault of the server; see the server's log."
    )


def _from_http(error: HTTPException) -> Problem:
    if isinstance(error, Problem):
        return error
    phrase = HTTPStatus(error.status_code).phrase
    slug = phrase.lower().replace(" ", "-")
    return Problem(error.status_code, slug, phrase, str(error.detail), headers=error.headers)
