"""Puts something around each call of a function, in this process alone."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any


def surround(module: str, path: str, scope: Callable[[], AbstractContextManager[None]]) -> None:
    """Let each call run within a new `scope`; a function is named as the module that calls it does: `Class.method`."""
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for each in outer:
        owner = getattr(owner, each)
    function = getattr(owner, name)

    @functools.wraps(function)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        with scope():
            return await function(*arguments, **options)

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        with scope():
            return function(*arguments, **options)

    setattr(owner, name, awaited if inspect.iscoroutinefunction(function) else called)
