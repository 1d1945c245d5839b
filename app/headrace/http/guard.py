"""Admits a request or refuses it: by its key, by a team's own authentication, or by where it comes from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from fastapi import FastAPI
from starlette._utils import get_route_path
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.http.access import check_caller, forbidden
from headrace.http.api_keys import KeyFile, Permission
from headrace.http.authenticator import Authenticator, unauthorised
from headrace.http.caller import PERMISSIONS, Caller
from headrace.http.problems import Problem, unavailable
from headrace.settings import Settings

NO_KEY = "this route needs an API key: Authorization: Bearer KEY, or X-API-Key: KEY."
ANONYMOUS = Caller("anonymous", PERMISSIONS)


class Guard:
    """Decides who may do what, by the settings of one running application."""

    def __init__(self, settings: Settings, authenticator: Authenticator | None = None) -> None:
        """Read the keys. Raises: ConfigurationError (the file is unreadable or wrong)."""
        self._authenticator = authenticator
        self._keys = KeyFile(settings.api_keys_file) if settings.api_keys_file is not None else None
        self._is_open = settings.ingest.allow_unauthenticated

    async def admit(self, connection: HTTPConnection, permission: Permission) -> Caller:
        """Return the caller. Raises: Problem 401 (no or unknown key), 403 (no scope, not this machine).

        A key of the file counts whatever else is asked for, so that operators and commands keep theirs.
        """
        given = _given_key(connection) if self._keys is not None else None
        key = self._keys.find(given) if self._keys is not None and given is not None else None
        if key is not None:
            caller = key.caller
        elif self._authenticator is not None:
            caller = await self._authenticator.identify(connection)
        elif self._keys is not None:
            raise unauthorised(NO_KEY if given is None else "the API key is not known.")
        else:
            if not self._is_open:
                check_caller(connection)
            caller = ANONYMOUS
        if not caller.may(permission):
            raise forbidden(f"{caller.name!r} lacks the scope {permission}.")
        return caller


def require(permission: Permission) -> Callable[[Request], Awaitable[str]]:
    """Return a FastAPI dependency that admits callers with the scope and returns their name."""

    async def admit(request: Request) -> str:
        return (await guard_of(request.app).admit(request, permission)).name

    return admit


def install_guard(app: FastAPI, settings: Settings, authenticator: Authenticator | None = None) -> Guard:
    """Guard the application: the platform's own routes, and FastAPI's documents with the scope `read`.

    Called while the application starts, before it serves. Raises: ConfigurationError (the file of keys).
    """
    guard = app.state.headrace_guard = Guard(settings, authenticator)
    documents = (app.docs_url, app.redoc_url, app.openapi_url, app.swagger_ui_oauth2_redirect_url)
    permissions: dict[str, Permission] = {path.rstrip("/"): "read" for path in documents if path is not None}
    # FastAPI adds its documents itself, so that no dependency of ours can guard them; and an application that has begun
    # to start accepts no middleware, so that its finished stack is wrapped instead.
    stack = app.middleware_stack or app.build_middleware_stack()
    inner = stack.app if isinstance(stack, GuardedPaths) else stack
    app.middleware_stack = GuardedPaths(inner, guard, permissions)
    return guard


def guard_of(app: FastAPI) -> Guard:
    """Return the application's guard. Raises: Problem 503 (the application has not started)."""
    guard = cast("Guard | None", getattr(app.state, "headrace_guard", None))
    if guard is None:
        raise unavailable("the platform has not started; give FastAPI its lifespan: FastAPI(lifespan=events.lifespan).")
    return guard


class GuardedPaths:
    """Guards single paths that no router of the platform serves; ASGI middleware."""

    def __init__(self, app: ASGIApp, guard: Guard, permissions: Mapping[str, Permission]) -> None:
        self.app = app
        self._guard = guard
        self._permissions = permissions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with a problem."""
        if scope["type"] == "http":
            permission = self._permissions.get(get_route_path(scope).rstrip("/"))
            if permission is not None:
                try:
                    await self._guard.admit(HTTPConnection(scope), permission)
                except Problem as problem:
                    await problem.response(scope["path"])(scope, receive, send)
                    return
        await self.app(scope, receive, send)


def _given_key(connection: HTTPConnection) -> str | None:
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return connection.headers.get("x-api-key")
