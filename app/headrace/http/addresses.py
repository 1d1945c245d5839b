"""Finds where an application serves the platform's routes, whatever prefix it gave them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.routing import NoMatchFound

from headrace.http.asyncapi import ASYNCAPI
from headrace.telemetry.routes import METRICS, READY


def announced(app: FastAPI, address: str) -> dict[str, str]:
    """Return what to look at in an application that is served on the address; what it does not serve is left out."""
    paths = {
        "docs": app.docs_url,
        "events": _path(app, ASYNCAPI),
        "health": _path(app, READY),
        "metrics": _path(app, METRICS),
    }
    return {name: f"{address}{app.root_path}{path}" for name, path in paths.items() if path is not None}


def _path(app: FastAPI, route: str) -> str | None:
    try:
        return str(app.url_path_for(route))
    except NoMatchFound:
        return None
