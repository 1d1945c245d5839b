"""An application with routes of a team's own beside the platform's, called inside the test's process."""

from __future__ import annotations

import httpx
from fastapi import FastAPI

from headrace import Headrace
from headrace.http.guard import install_guard


def application(platform: Headrace) -> FastAPI:
    """Return an application with the platform's routes; the test runs the platform itself (`running`)."""
    app = FastAPI()
    app.include_router(platform.router)
    app.state.headrace = platform
    install_guard(app, platform.settings, platform.authenticator)
    return app


def caller(app: FastAPI) -> httpx.AsyncClient:
    """Return a client that seems to call from this machine; a fault of the server is an answer, not an exception."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("127.0.0.1", 50_000))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
