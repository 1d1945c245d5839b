"""Finds what `MODULE:APP` names, and the platform that an application runs."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from headrace.errors import ConfigurationError

if TYPE_CHECKING:
    from headrace.platform import Headrace
    from headrace.runtime import Runtime


def load_app(target: str) -> FastAPI:
    """Import `MODULE:APP` and return the FastAPI application.

    Raises: ConfigurationError (no such module or attribute, not a FastAPI application). Errors of the team's own code
    pass through as they are, with their traceback.
    """
    module_name, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise ConfigurationError(
            f"{target!r} does not name an application; write MODULE:APP, such as shop.service:app."
        )
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"there is no module {error.name!r} to import {target!r} from; run in its folder, or set PYTHONPATH."
            ) from error
        raise
    app = getattr(module, attribute, None)
    if not isinstance(app, FastAPI):
        found = "does not exist" if app is None else f"is a {type(app).__name__}, not a FastAPI application"
        raise ConfigurationError(f"{target!r}: {attribute} {found} in {module_name}.")
    return app


def find_platform(app: FastAPI) -> Headrace:
    """Return the Headrace whose lifespan the application runs. Raises: ConfigurationError (none)."""
    from headrace.platform import Headrace

    named = getattr(app.state, "headrace", None)
    for candidate in (named, *_reachable(app.router.lifespan_context)):
        if isinstance(candidate, Headrace):
            return candidate
    raise ConfigurationError(
        "the application does not run a Headrace; write FastAPI(lifespan=events.lifespan), or enter "
        "events.lifespan(app) in your own lifespan and set app.state.headrace = events."
    )


def running(platform: Headrace) -> Runtime:
    """Return what runs, once the application has started. Raises: ConfigurationError (its lifespan was not entered)."""
    if platform.runtime is None:
        raise ConfigurationError(
            "the application has started without its Headrace; enter events.lifespan(app) in your own lifespan."
        )
    return platform.runtime


def _reachable(lifespan: Callable[..., Any]) -> Iterator[object]:
    """Yield what the lifespan is bound to or names, through the wrappers that FastAPI puts around it."""
    seen: set[int] = set()
    waiting: list[Any] = [lifespan]
    while waiting:
        function = waiting.pop()
        yield getattr(function, "__self__", None)
        function = inspect.unwrap(function)
        if id(function) in seen or not (inspect.isfunction(function) or inspect.ismethod(function)):
            continue
        seen.add(id(function))
        names = inspect.getclosurevars(function)
        yield from names.globals.values()
        yield from names.nonlocals.values()
        waiting += [value for value in names.nonlocals.values() if callable(value)]
