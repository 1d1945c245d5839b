"""How busy an event loop is, measured while somebody wants to know.

`telemetry/loop_monitor.py` looks for stalls of 100 ms, twenty times a second, which is too rarely for this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter, thread_time

LOOK_SECONDS = 0.002
"""How often it is measured."""
WINDOW_SECONDS = 0.1
"""Over which both are measured."""


class LoopLoad:
    """By how much a loop lags, and what its thread takes of a processor: one that gets none lags as well."""

    def __init__(self) -> None:
        self.lag_seconds = 0.0
        """By how much it comes too late for a timer."""
        self.share = 0.0
        """Of the time in which it runs, from 0 to 1; the rest it waits."""
        self.is_watching = False
        """True while somebody wants to know."""
        self._looked_at = self._since = self._processor_seconds = 0.0

    def watch(self, loop: asyncio.AbstractEventLoop, is_wanted: Callable[[], bool]) -> None:
        """Measure this loop until nobody wants to know any more; from then on it counts as idle."""
        if not self.is_watching:
            self.is_watching = True
            self._looked_at = perf_counter()
            self._begin_window()
            self._look_soon(loop, is_wanted)

    def _look_soon(self, loop: asyncio.AbstractEventLoop, is_wanted: Callable[[], bool]) -> None:
        loop.call_later(LOOK_SECONDS, self._look, loop, is_wanted, perf_counter() + LOOK_SECONDS)

    def _look(self, loop: asyncio.AbstractEventLoop, is_wanted: Callable[[], bool], due: float) -> None:
        now = perf_counter()
        newest = min(1.0, (now - self._looked_at) / WINDOW_SECONDS)
        self.lag_seconds += newest * (max(0.0, now - due) - self.lag_seconds)
        self._looked_at = now
        if now - self._since > WINDOW_SECONDS:
            self.share = (thread_time() - self._processor_seconds) / (now - self._since)
            self._begin_window()
        if is_wanted():
            self._look_soon(loop, is_wanted)
        else:
            self.is_watching = False
            self.lag_seconds = self.share = 0.0

    def _begin_window(self) -> None:
        self._since, self._processor_seconds = perf_counter(), thread_time()
