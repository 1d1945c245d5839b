"""Waiting for a condition instead of sleeping: a test continues as soon as it holds, or fails with its name."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], object | Awaitable[object]], what: str, seconds: float = 30.0) -> None:
    """Return when the condition holds (sync or async, truthy). Raises: TimeoutError that names `what`."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:g} s, still not: {what}")
        await asyncio.sleep(0.02)
