"""A run that nobody waits for any more ends with the handler that it is in, and one that has ended is not given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from headrace.emits.emitter import Emitter
from headrace.engine.patience import Patience
from headrace.engine.run import Run
from headrace.engine.threads import HandlerThreads
from headrace.envelope import Envelope
from headrace.event import Event
from headrace.handlers.subscription import Subscription
from headrace.item import Item
from headrace.log.ports import StoredRecord
from headrace.telemetry.tracing import Tracing
from tests.support.waiting import until


class Noted(Event, type="noted", topic="pages", key="page"):
    """Somebody noted a number."""

    page: str
    number: int


async def test_late_thread_runs_no_further_event_of_its_run() -> None:
    """The handlers have no state that could be missed, and the run has time left."""
    subscription, opened = Subscription("notes", service="shop"), threading.Event()
    ran: list[int] = []

    @subscription.on(Noted)
    def note(event: Noted) -> None:
        ran.append(event.number)
        assert opened.wait(60)

    run = _run(subscription, numbers=3)
    threads = HandlerThreads("notes", 1)
    running = asyncio.create_task(run.execute(threads, None))
    await until(lambda: ran == [0], "the first handler runs")
    running.cancel()
    await asyncio.wait({running})
    opened.set()
    await until(lambda: threads.abandoned == 0, "its thread has returned")
    assert ran == [0]
    threads.stop()


async def test_call_that_returned_is_not_overdue_if_its_loop_is_late() -> None:
    """A loop that has much to do hears late that a thread has ended."""
    subscription = Subscription("notes", service="shop")
    ran: list[int] = []

    @subscription.on(Noted)
    def note(event: Noted) -> None:
        ran.append(event.number)

    class HeardLate(HandlerThreads):
        async def run(self, function: Callable[[], None], attend: Any = None, **_: Any) -> None:
            async def late() -> None:
                function()
                for _ in range(10):
                    await asyncio.sleep(0)

            await attend(asyncio.create_task(late()))

    threads = HeardLate("notes", 1)
    await _run(subscription, numbers=2, patience=Patience(0.0)).execute(threads, None)
    assert ran == [0, 1]
    threads.stop()


def _run(subscription: Subscription, *, numbers: int, patience: Patience | None = None) -> Run:
    items = []
    for number in range(numbers):
        item = Item(StoredRecord("pages", 0, number, 0, b"a", b"", ()), key="a")
        item.known_envelope = Envelope(id=str(number), source="/tests", type="noted")
        item.event, item.handler = Noted(page="a", number=number), subscription.handlers["noted"]
        items.append(item)
    return Run(
        items,
        {},
        Emitter("shop", "notes", {}, 1_000),
        careful=False,
        timeout_seconds=60.0,
        observe=lambda handler, seconds: None,
        failed=lambda item, error: None,
        tracing=Tracing(service="shop"),
        patience=patience,
    )
