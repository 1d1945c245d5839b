"""What a test asks of an application by environment variables: its name, and handlers of one kind.

| variable | what it is |
| --- | --- |
| `APP_NAME` | the service's name, which is also its topic's: each test has groups and topics of its own |
| `APP_HANDLERS` | `sync`: handlers as they are written; `async`: coroutines that suspend once and then call them |
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from typing import Any


def name(default: str) -> str:
    """Return the name that the test gives, or the application's own."""
    return os.environ.get("APP_NAME", default)


def of_asked_kind(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return the handler, or a coroutine function around it."""
    if os.environ.get("APP_HANDLERS") != "async":
        return handler

    @functools.wraps(handler)
    async def suspend_and_call(*arguments: Any, **keywords: Any) -> Any:
        await asyncio.sleep(0)
        return handler(*arguments, **keywords)

    return suspend_and_call


def choose(plain: Callable[..., Any], asynchronous: Callable[..., Any]) -> Callable[..., Any]:
    """Return the one of two handlers that the test asks for."""
    return asynchronous if os.environ.get("APP_HANDLERS") == "async" else plain
