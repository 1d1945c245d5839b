"""A handler that really blocks the event loop is caught in the act and named."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from types import CodeType

import pytest

from headrace.telemetry.health import Health
from headrace.telemetry.loop_monitor import LoopMonitor
from headrace.telemetry.metrics import Metrics
from tests.support.waiting import until


def wait_like_a_database_driver(seconds: float) -> None:
    time.sleep(seconds)  # what a user's blocking call does: the thing under test, not a synchronisation


async def credit() -> None:
    wait_like_a_database_driver(0.4)


async def polite() -> None:
    await asyncio.sleep(0.2)


class Watch:
    def __init__(self) -> None:
        self.metrics = Metrics(version="1", role="worker")
        self.health = Health()
        handlers: dict[CodeType, str] = {credit.__code__: "credit", polite.__code__: "polite"}
        self.monitor = LoopMonitor(asyncio.get_running_loop(), self.metrics, self.health, handlers)

    def stalls(self, handler: str) -> float | None:
        return self.metrics.registry.get_sample_value("headrace_loop_blocked_seconds_count", {"handler": handler})

    def seconds(self, handler: str) -> float:
        found = self.metrics.registry.get_sample_value("headrace_loop_blocked_seconds_sum", {"handler": handler})
        assert found is not None
        return found


def watched(test: Callable[[Watch], Awaitable[None]]) -> None:
    async def run() -> None:
        watch = Watch()
        watch.monitor.start()
        try:
            await test(watch)
        finally:
            watch.monitor.stop()

    asyncio.run(run())


def test_a_blocking_handler_is_counted_and_named_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def test(watch: Watch) -> None:
        await asyncio.create_task(credit())
        await until(lambda: watch.stalls("credit"), "the stall is counted")
        assert watch.seconds("credit") >= 0.25

    with caplog.at_level(logging.WARNING, "headrace"):
        watched(test)
    (warning,) = [record for record in caplog.records if "credit" in record.getMessage()]
    assert "make it `def`" in warning.getMessage()


def test_a_handler_that_blocks_again_is_only_counted(caplog: pytest.LogCaptureFixture) -> None:
    """It is not named in a second warning."""

    async def test(watch: Watch) -> None:
        await asyncio.create_task(credit())
        await until(lambda: watch.stalls("credit") == 1, "the first stall is counted")
        await asyncio.create_task(credit())
        await until(lambda: watch.stalls("credit") == 2, "the second stall is counted")

    with caplog.at_level(logging.WARNING, "headrace"):
        watched(test)
    assert len([record for record in caplog.records if "credit" in record.getMessage()]) == 1


def test_a_stall_outside_the_handlers_is_unknown() -> None:
    async def test(watch: Watch) -> None:
        wait_like_a_database_driver(0.4)
        await until(lambda: watch.stalls("unknown"), "the stall is counted")
        assert watch.stalls("credit") is None

    watched(test)


def test_a_handler_that_awaits_is_never_blamed() -> None:
    async def test(watch: Watch) -> None:
        await polite()
        assert watch.stalls("polite") is None

    watched(test)


def test_the_loop_s_ticks_reach_health_until_the_monitor_stops() -> None:
    async def test(watch: Watch) -> None:
        ticked = threading.Event()
        watch.health.loop_ticked = ticked.set  # type: ignore[method-assign]
        await until(ticked.is_set, "the loop ticks")
        assert watch.health.liveness() == (True, [])

    watched(test)


def test_stopping_leaves_no_thread_behind() -> None:
    async def test(watch: Watch) -> None:
        assert any(thread.name == "headrace-loop-monitor" for thread in threading.enumerate())

    watched(test)
    assert not any(thread.name == "headrace-loop-monitor" for thread in threading.enumerate())
