"""An event loop in a thread of its own, so that plain and asynchronous tests run handlers in the same way."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Loop:
    """Runs coroutines one after the other, all on one loop; what they raise is raised by `run`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headrace-testing")
        self._runner = asyncio.Runner()
        self._end = weakref.finalize(self, _close, self._thread, self._runner)
        self._end.atexit = False  # threads have ended by then

    def run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the coroutine function returns."""
        return self._thread.submit(_run, self._runner, function).result()

    def close(self) -> None:
        """End the loop and its thread; otherwise both end when nobody refers to the loop any more."""
        self._end()


def _run(runner: asyncio.Runner, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return runner.run(function())


def _close(thread: ThreadPoolExecutor, runner: asyncio.Runner) -> None:
    thread.submit(runner.close).result()
    thread.shutdown()
