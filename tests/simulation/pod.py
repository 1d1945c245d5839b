"""A process of the service: its consumers, as `headrace.runtime` starts and stops them."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from headrace.engine.consumer import Consumer
from headrace.engine.context import EngineContext
from headrace.engine.pace import Pace
from headrace.errors import HeadraceError
from headrace.platform import Headrace
from headrace.settings import Settings
from headrace.stopping import end_tasks
from headrace.telemetry.health import Health
from headrace.telemetry.metrics import Metrics, catalogue
from headrace.telemetry.tracing import Tracing
from tests.simulation.log.client import SimulatedLog
from tests.simulation.loop import PROCESS, Loop, Process
from tests.simulation.store.client import Pool

PACE = Pace(fetch=3.0, patience=1.5, watch=4.0, gauge=20.0, supervise=3.0, mark=1.0)
METRICS = Metrics(version="0", role="worker")
for _each in catalogue():
    _metric = getattr(METRICS, _each.name)
    _metric.labels = cache(_metric.labels)  # nobody reads these: that a child is removed makes no difference
TRACING = Tracing(service="simulated", version="0", system="kafka", server_address=None, metrics=METRICS)
NO_THREADS = ThreadPoolExecutor(1)
"""Starts no thread: the loop runs by itself what is for an executor."""
DRAIN_SECONDS = 10.0


class Pod:
    """One incarnation of a process, from its start until it has ended in whatever way."""

    def __init__(
        self, loop: Loop, name: str, platform: Headrace, settings: Settings, log: SimulatedLog, pool: Pool
    ) -> None:
        self.process = Process(name)
        self.pool = pool
        self._loop = loop
        self._context = EngineContext(
            settings,
            platform.registry,
            log,
            pool,  # type: ignore[arg-type]
            METRICS,
            TRACING,
            Health(),
            NO_THREADS,
            name,
            "simulated",
            PACE,
        )
        self.consumers: list[Consumer] = []
        self._platform = platform
        self._starting: asyncio.Task[None] | None = None
        self.is_stopping = False
        self.has_stopped = False

    def start(self) -> None:
        """Begin, in the process's own context."""
        self._in_process(self._start())

    def stop(self) -> None:
        """Drain and end."""
        if not self.is_stopping:
            self.is_stopping = True
            self._in_process(self._stop())

    @property
    def failures(self) -> dict[str, str]:
        """Return why the process is beyond repair."""
        return self._context.health.failures()

    def _in_process(self, work: Any) -> None:
        context = contextvars.Context()
        context.run(PROCESS.set, self.process)
        self._loop.call_soon(self._loop.create_task, work, context=context)

    async def _start(self) -> None:
        if self.is_stopping:
            return
        self._starting = asyncio.current_task()
        for subscription in self._platform.registry.subscriptions.values():
            consumer = Consumer(self._context, subscription)
            self.consumers.append(consumer)
            await consumer.start()

    async def _stop(self) -> None:
        if self._starting is not None and not self._starting.done():
            await end_tasks({self._starting}, 2.0)
        stops = [consumer.stop(DRAIN_SECONDS) for consumer in self.consumers]
        try:
            async with asyncio.timeout(DRAIN_SECONDS * 2 + 10):
                await asyncio.gather(*stops, return_exceptions=True)
        except (TimeoutError, HeadraceError):
            pass
        self.has_stopped = True
