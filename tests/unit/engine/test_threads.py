"""The threads of synchronous handlers: one that hangs is left behind, and holds no place of another's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from headrace.engine.threads import HandlerThreads
from tests.support.waiting import until


@pytest.fixture
def opened() -> Iterator[threading.Event]:
    """An event that is set when the test is over, so that no thread stays in it."""
    event = threading.Event()
    yield event
    event.set()


async def test_call_behind_a_hung_one_runs_once_it_is_given_up(opened: threading.Event) -> None:
    """It was waiting already, for the only place."""
    threads, began, ran = HandlerThreads("notes", 1), threading.Event(), threading.Event()
    hanging = asyncio.create_task(threads.run(lambda: _hang(began, opened)))
    waiting = asyncio.create_task(threads.run(ran.set))
    await until(began.is_set, "the first call runs")
    assert not ran.is_set()
    hanging.cancel()
    await asyncio.wait_for(waiting, 10)
    assert ran.is_set()
    assert threads.abandoned == 1
    threads.stop()


async def test_thread_that_returns_late_is_no_longer_abandoned(opened: threading.Event) -> None:
    threads, began = HandlerThreads("notes", 1), threading.Event()
    hanging = asyncio.create_task(threads.run(lambda: _hang(began, opened)))
    await until(began.is_set, "the first call runs")
    hanging.cancel()
    await asyncio.wait({hanging})
    assert threads.abandoned == 1
    opened.set()
    await until(lambda: threads.abandoned == 0, "the thread has returned")
    threads.stop()


async def test_call_that_waits_for_a_place_is_cancelled_unrun(opened: threading.Event) -> None:
    threads, began, ran = HandlerThreads("notes", 1), threading.Event(), threading.Event()
    hanging = asyncio.create_task(threads.run(lambda: _hang(began, opened)))
    waiting = asyncio.create_task(threads.run(ran.set))
    await until(began.is_set, "the first call runs")
    waiting.cancel()
    await asyncio.wait({waiting})
    opened.set()
    await hanging
    assert (ran.is_set(), threads.abandoned) == (False, 0)
    threads.stop()


async def test_what_a_function_raises_comes_out() -> None:
    threads = HandlerThreads("notes", 1)

    def fail() -> None:
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        await threads.run(fail)
    threads.stop()


def _hang(began: threading.Event, opened: threading.Event) -> None:
    began.set()
    assert opened.wait(60)
