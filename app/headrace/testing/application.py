"""Finds the platform of what a test names: an application, its `Headrace`, or `MODULE:APP`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

from headrace.errors import ConfigurationError
from headrace.loading import find_platform, load_app
from headrace.platform import Headrace

if TYPE_CHECKING:
    from headrace.handlers.subscription import Subscription

Application = FastAPI | Headrace | str
"""A FastAPI application that runs a Headrace, the Headrace itself, or where to import the application from."""


def platform_of(app: Application) -> Headrace:
    """Return the platform of an application, its declarations complete.

    Its handlers follow the application's `dependency_overrides`. Raises: ConfigurationError.
    """
    if isinstance(app, str):
        app = load_app(app)
    platform = app if isinstance(app, Headrace) else find_platform(app)
    platform.registry.complete()
    if isinstance(app, FastAPI):
        platform.registry.follow(app.dependency_overrides)
    return platform


def subscription_with_state(platform: Headrace, model: type[object], name: str | None) -> Subscription:
    """Return the subscription that keeps a state of this class. Raises: ConfigurationError (none, or several)."""
    subscriptions = platform.registry.subscriptions
    if name is not None and name not in subscriptions:
        raise ConfigurationError(
            f"the service declares no subscription {name!r}, but {', '.join(sorted(subscriptions)) or 'none'}."
        )
    found = [
        each
        for each in subscriptions.values()
        if name in (None, each.name) and any(state.model is model for state in each.states.values())
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        where = f"the subscription {name!r}" if name else "the service"
        raise ConfigurationError(f"no handler of {where} takes a State[{model.__name__}].")
    names = ", ".join(each.name for each in found)
    raise ConfigurationError(
        f"several subscriptions keep a {model.__name__} ({names}); say which: subscription={found[0].name!r}."
    )
