"""Waits for the handlers of a run, which have a thread or a task of their own, and leaves one behind that hangs."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from headrace.item import Item
from headrace.waiting import has_ended

if TYPE_CHECKING:
    from headrace.engine.run import Run

GRACE_SECONDS = 1.0
"""An async handler is cancelled at its limit; one that ends soon afterwards needs no giving up."""
ENDING_SECONDS = 0.2
"""What a cancelled handler may take to end; then its transaction is ended for it."""


async def attend(run: Run, work: asyncio.Future[None]) -> None:
    """Return when the handlers have returned, which `work` tells: their task, or a future of their thread.

    Cancel: the handlers are cancelled as well, and waited for no longer than a moment.
    Raises: what they raise; OverdueError (one of them does not return, and is left behind).
    """
    try:
        while True:
            item, seconds, limit = _call(run)
            if item is not None and seconds >= limit:
                break
            if await has_ended(work, limit - seconds):
                work.result()
                return
    except asyncio.CancelledError:
        await _leave(run, work)
        raise
    overdue = run.overdue(item, seconds)
    await _leave(run, work)
    raise overdue


def _call(run: Run) -> tuple[Item | None, float, float]:
    """Return the item whose handler runs, for how many seconds now, and how long it is waited for."""
    item, began = run.current, run.began
    if item is None or item is not run.current:  # a thread may go on to the next one meanwhile
        return None, 0.0, min(run.limit(handler).seconds for handler in run.handlers)
    assert item.handler is not None
    limit = run.limit(item.handler).seconds + GRACE_SECONDS * item.handler.is_async
    return item, time.perf_counter() - began, limit


async def _leave(run: Run, work: asyncio.Future[None]) -> None:
    run.abandon()
    work.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait({work}, timeout=ENDING_SECONDS)
    if not work.done():
        run.end_transaction()
