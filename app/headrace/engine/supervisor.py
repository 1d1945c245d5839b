"""Watches workers that do nothing, and abandons those that do not end. Awaits nothing that it watches.

A handler that runs beyond its limit is given up on by its own run (`run.py`).

| what it sees | what it does |
| --- | --- |
| records wait, and the worker has done nothing for `stuck_seconds` | abandons the tenure, with its client |
| the same, four times in a row without progress | declares the process beyond repair |
| too many threads of handlers that have not returned | declares the process beyond repair |

A process that is beyond repair exits with a code that says so (`runtime.py`): its supervisor starts a new one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.engine.context import EngineContext
from headrace.engine.threads import ABANDONED_THREADS, HandlerThreads
from headrace.engine.worker import Phase, Status, Worker
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

STUCK_RESTARTS = 3
"""Tenures in a row that were abandoned without progress before the process is beyond repair."""


def is_stuck(status: Status, waiting_seconds: float, limit_seconds: float) -> bool:
    """Tell whether the worker has something to do, and does nothing; records wait for it since `waiting_seconds`.

    A refused partition waits for a person, one whose claim was lost waits for the group: neither is stuck. A handler
    that runs is judged by its own limit.
    """
    if status.phase in (Phase.REFUSED, Phase.FENCED, Phase.RELEASED) or status.handler_seconds is not None:
        return False
    idle = status.idle_seconds if status.phase is Phase.CLAIMING else min(status.idle_seconds, waiting_seconds)
    return idle > limit_seconds


@dataclass
class Supervisor:
    """Looks after the workers of one subscription. `lag` is by partition number, as far as it is known."""

    context: EngineContext
    subscription: str
    threads: HandlerThreads
    workers: Mapping[int, Worker]
    lag: dict[int, int] = field(default_factory=dict)
    _waiting: dict[int, tuple[int, float]] = field(default_factory=dict)
    """By partition: (position, since when records wait behind it), in seconds of the monotonic clock."""
    _abandoned: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By partition: (position when it was last abandoned, how often in a row)."""

    async def run(self) -> None:
        """Look at every worker until cancelled."""
        while True:
            try:
                self.look()
            except Exception:
                logger.exception("the supervisor of a subscription failed", subscription=self.subscription)
            await asyncio.sleep(self.context.pace.supervise)

    def look(self) -> None:
        """Judge every worker once."""
        engine, longest = self.context.settings.engine, 0.0
        for number, worker in list(self.workers.items()):
            try:
                status = worker.status()
                longest = max(longest, status.longest_seconds)
                if is_stuck(status, self._waiting_seconds(number, status), engine.stuck_seconds):
                    self._abandon_tenure(number, worker, status)
            except Exception:  # whatever it is, the other workers are looked after
                logger.exception("a worker cannot be judged", subscription=self.subscription, partition=number)
        metrics, hanging = self.context.metrics, self.threads.abandoned
        metrics.handler_running_seconds.labels(subscription=self.subscription).set(longest)
        metrics.handler_threads_abandoned.labels(subscription=self.subscription).set(hanging)
        if hanging >= ABANDONED_THREADS:
            detail = f"{hanging} handlers of {self.subscription} hang in threads that nothing can end."
            self.context.health.fail(f"hung_handlers:{self.subscription}", detail)

    def _waiting_seconds(self, number: int, status: Status) -> float:
        """Return for how long records have been waiting behind the same position."""
        now = time.monotonic()
        position, since = self._waiting.get(number, (status.position, now))
        if not self.lag.get(number) or position != status.position:
            since = now
        self._waiting[number] = (status.position, since)
        return now - since

    def _abandon_tenure(self, number: int, worker: Worker, status: Status) -> None:
        position, times = self._abandoned.get(number, (status.position, 0))
        times = times + 1 if position == status.position else 1
        self._abandoned[number] = (status.position, times)
        self.context.metrics.worker_abandoned_total.labels(subscription=self.subscription, reason="batch").inc()
        self.context.metrics.client_recreated_total.labels(subscription=self.subscription, reason="stuck").inc()
        seconds = round(status.idle_seconds, 1)
        logger.error(
            "no progress, the worker begins again",
            subscription=self.subscription,
            partition=number,
            lag=self.lag.get(number),
            seconds=seconds,
        )
        if times > STUCK_RESTARTS:
            detail = f"partition {number} of {self.subscription} made no progress in {times} attempts."
            self.context.health.fail(f"stuck:{self.subscription}/{number}", detail)
        worker.abandon()
