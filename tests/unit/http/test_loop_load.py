"""How busy an event loop is."""

from __future__ import annotations

import asyncio
import statistics
import time

from headrace.http.loop_load import WINDOW_SECONDS, LoopLoad
from tests.support.waiting import until

BLOCK_SECONDS = 0.05


def _run_on(loop: asyncio.AbstractEventLoop, end: float) -> None:
    """Keep the loop busy, a turn after the other."""
    begun = time.thread_time()
    while time.thread_time() - begun < BLOCK_SECONDS:
        pass
    if time.perf_counter() < end:
        loop.call_soon(_run_on, loop, end)


async def test_busy_loop_lags_and_takes_its_share() -> None:
    """Turns of 50 ms of processor time: timers come late by about as much, and the share is what the thread has had."""
    load, loop, shares = LoopLoad(), asyncio.get_running_loop(), list[float]()
    began, processor = time.perf_counter(), time.thread_time()

    def is_wanted() -> bool:
        if load.share:
            shares.append(load.share)
        return time.perf_counter() < began + 10 * WINDOW_SECONDS

    load.watch(loop, is_wanted)
    loop.call_soon(_run_on, loop, began + 10 * WINDOW_SECONDS)
    await until(lambda: load.lag_seconds > BLOCK_SECONDS / 4, "it lags")
    await until(lambda: not is_wanted(), "the load is over")
    had = (time.thread_time() - processor) / (time.perf_counter() - began)
    assert had / 2 < statistics.mean(shares) <= 1.01
    await until(lambda: load.share == load.lag_seconds == 0, "a loop that nobody asks about counts as idle")


async def test_loop_that_waits_takes_no_processor() -> None:
    """A thread that sleeps stands for one that gets no processor: it lags, and has no share."""
    load, loop = LoopLoad(), asyncio.get_running_loop()
    load.watch(loop, lambda: True)
    loop.call_soon(time.sleep, 3 * WINDOW_SECONDS)
    await until(lambda: load.lag_seconds > 0.01, "it lags")
    assert load.share < 0.5


async def test_it_is_measured_only_while_that_is_wanted() -> None:
    """An idle process has no timer for it."""
    load, loop, looked = LoopLoad(), asyncio.get_running_loop(), 0

    def is_wanted() -> bool:
        nonlocal looked
        looked += 1
        return looked % 3 != 0

    load.watch(loop, is_wanted)
    load.watch(loop, is_wanted)
    await until(lambda: looked == 3, "it has looked three times")
    load.watch(loop, is_wanted)
    await until(lambda: looked == 6, "it looks again when it is asked to")
