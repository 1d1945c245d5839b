"""The steps of a stop: each has its time, and one that fails or hangs is logged and keeps no other from its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from headrace.telemetry.logging import get_logger

T = TypeVar("T")

logger = get_logger("headrace")

CANCEL_SECONDS = 1.0


async def finish(what: str, work: Awaitable[T], seconds: float) -> T | None:
    """Return the work's result, or None where it failed or took longer; then it is cancelled. Never raises."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        logger.error("a step of the stop took too long", step=what, limit_seconds=seconds)
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_SECONDS)
        return None
    if task.cancelled():
        logger.error("a step of the stop was cancelled", step=what)
        return None
    if (error := task.exception()) is not None:
        _failed(what, error)
        return None
    return task.result()


def attempt(what: str, work: Callable[[], object]) -> None:
    """Do the work. Never raises."""
    try:
        work()
    except Exception as error:
        _failed(what, error)


def _failed(what: str, error: BaseException) -> None:
    logger.error("a step of the stop failed", step=what, exc_info=(type(error), error, error.__traceback__))
