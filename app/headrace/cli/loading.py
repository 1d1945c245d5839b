"""What commands take that work on an application: `MODULE:APP`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeVar

import typer

from headrace.errors import ConfigurationError
from headrace.loading import find_platform, load_app
from headrace.platform import Headrace

T = TypeVar("T")

Target = Annotated[str, typer.Argument(metavar="MODULE:APP", help="The application, such as shop.service:app.")]


def load_platform(target: str) -> Headrace:
    """Return the platform of the application, with all that it declares. Raises: ConfigurationError."""
    platform = find_platform(load_app(target))
    platform.registry.complete()
    return platform


def declared(target: str, what: str, known: Mapping[str, T], name: str) -> T:
    """Return what the application declares under the name. Raises: ConfigurationError (nothing; what there is)."""
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise ConfigurationError(f"{target} declares no {what} {name!r}; it declares: {there}.")
    return known[name]
