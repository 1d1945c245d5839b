"""Waiting for a condition instead of sleeping: a test continues as soon as it holds, or fails with its name."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

SHORTEST_SECONDS, LONGEST_SECONDS = 0.01, 0.05
"""Between two looks: a twentieth of the time that it has waited, since looking costs the processor of the others."""


async def until(condition: Callable[[], object | Awaitable[object]], what: str, seconds: float = 30.0) -> None:
    """Return when the condition holds (sync or async, truthy). Raises: TimeoutError that names `what`."""
    start = time.monotonic()
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return
        waited = time.monotonic() - start
        if waited > seconds:
            raise TimeoutError(f"after {seconds:g} s, still not: {what}")
        await asyncio.sleep(min(max(waited / 20, SHORTEST_SECONDS), LONGEST_SECONDS))
