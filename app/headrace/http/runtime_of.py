"""Finds the running platform of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from headrace.http.problems import unavailable

if TYPE_CHECKING:
    from headrace.runtime import Runtime


def runtime_of(request: Request) -> Runtime:
    """Return the running platform of the request's application. Raises: Problem 503 (it does not run)."""
    platform = getattr(request.app.state, "headrace", None)
    runtime: Runtime | None = platform.runtime if platform is not None else None
    if runtime is None:
        raise unavailable("the platform does not run; give FastAPI its lifespan: FastAPI(lifespan=events.lifespan).")
    return runtime
