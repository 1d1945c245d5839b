"""Notices that something blocks the event loop, and names the handler that does."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Mapping
from types import CodeType, FrameType

from headrace.telemetry.health import Health
from headrace.telemetry.logging import get_logger
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.rate_limit import OncePerMinute

TICK_SECONDS = 0.05
STALL_SECONDS = 0.1
"""A tick that is later than this is a stall: heartbeats and requests are delayed noticeably."""
UNKNOWN = "unknown"

logger = get_logger(__name__)


class LoopMonitor:
    """Ticks on the loop every 50 ms; a thread looks at the loop's stack when a tick is late.

    `handlers` maps the code object of each handler's function to its name. Only the loop's own thread is looked at: a
    handler that waits in a thread of its own, of whichever pool, blocks nothing. A handler that holds the interpreter's
    lock throughout (a C extension) cannot be caught in the act, and its stall is counted as `unknown`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, metrics: Metrics, health: Health, handlers: Mapping[CodeType, str]
    ) -> None:
        self._loop = loop
        self._metrics = metrics
        self._health = health
        self._handlers = handlers
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._loop_thread_id = 0
        self._due_at = 0.0
        self._suspect: tuple[float, str] = (0.0, UNKNOWN)  # the tick that was due, and who was on the loop instead
        self._warnings = OncePerMinute()

    def start(self) -> None:
        """Begin to watch. Call it on the loop."""
        self._loop_thread_id = threading.get_ident()
        self._health.loop_ticked()
        self._schedule()
        self._thread = threading.Thread(target=self._watch, name="headrace-loop-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; the loop's silence means nothing from now on. Call it on the loop."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join()
        self._health.loop_stopped()

    def _schedule(self) -> None:
        self._due_at = time.monotonic() + TICK_SECONDS
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        due_at, late = self._due_at, time.monotonic() - self._due_at
        self._health.loop_ticked()
        self._schedule()
        if late > STALL_SECONDS:
            seen_at, handler = self._suspect
            self._report(handler if seen_at == due_at else UNKNOWN, late)

    def _watch(self) -> None:
        wait = TICK_SECONDS
        try:
            while not self._stopped.wait(wait):
                due_at = self._due_at
                late = time.monotonic() - due_at
                if late > STALL_SECONDS and not self._is_known(due_at):
                    self._suspect = (due_at, self._running_handler())
                wait = max(STALL_SECONDS - late, TICK_SECONDS)
        except Exception:
            self._health.fail("loop_monitor_died")
            raise

    def _is_known(self, due_at: float) -> bool:
        seen_at, handler = self._suspect
        return seen_at == due_at and handler != UNKNOWN

    def _running_handler(self) -> str:
        frame: FrameType | None = sys._current_frames().get(self._loop_thread_id)
        while frame is not None:
            if (name := self._handlers.get(frame.f_code)) is not None:
                return name
            frame = frame.f_back
        return UNKNOWN

    def _report(self, handler: str, seconds: float) -> None:
        self._metrics.loop_blocked_seconds.labels(handler=handler).observe(seconds)
        held_back = self._warnings.held_back(handler)
        if held_back is None:
            return
        if handler == UNKNOWN:
            advice = "something outside the handlers blocked the event loop; a profiler shows what"
        else:
            advice = (
                f"{handler} blocked the event loop: make it `def` (it then runs in a thread), or await the slow part"
            )
        logger.warning(advice, handler=handler, blocked_seconds=round(seconds, 3), stalls_not_logged=held_back)
