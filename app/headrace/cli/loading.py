"""Finds what `MODULE:APP` names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI

from headrace.errors import ConfigurationError

if TYPE_CHECKING:
    from headrace.platform import Headrace


def load_app(target: str) -> FastAPI:
    """Import `MODULE:APP` and return the FastAPI application.

    Raises: ConfigurationError (no such module or attribute, not a FastAPI application). Errors of the team's own code
    pass through as they are, with their traceback.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(
            f"{target!r} does not name an application; write MODULE:APP, such as shop.service:app."
        )
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigurationError(
                f"there is no module {error.name!r} to import {target!r} from; run in its folder, or set PYTHONPATH."
            ) from error
        raise
    app = getattr(module, attribute, None)
    if not isinstance(app, FastAPI):
        found = "has no such attribute" if app is None else f"is a {type(app).__name__}, not a FastAPI application"
        raise ConfigurationError(f"{target!r}: {attribute} of {module_name} {found}.")
    return app


def find_platform(app: FastAPI) -> Headrace:
    """Return the Headrace whose lifespan the application runs. Raises: ConfigurationError (none)."""
    from headrace.platform import Headrace

    platform = getattr(app.router.lifespan_context, "__self__", None) or getattr(app.state, "headrace", None)
    for route in app.routes:
        platform = platform or getattr(route, "headrace", None)
    if isinstance(platform, Headrace):
        return platform
    raise ConfigurationError(
        "the application does not run a Headrace; write FastAPI(lifespan=events.lifespan), or enter events.lifespan(app) "
        "in your own lifespan and set app.state.headrace = events."
    )
