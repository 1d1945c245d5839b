"""`quiet()` returns when nothing is under way any more, wherever events go while it looks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from fastapi import FastAPI
from pydantic import BaseModel

from headrace import Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.log.ports import TopicInfo
from headrace.settings import Settings
from headrace.testing import Service, running
from tests.support.waiting import until


class Placed(Event, type="placed", topic="orders", key="order"):
    order: str


class Paid(Event, type="paid", topic="payments", key="order"):
    order: str


class Payments(BaseModel):
    paid: int = 0


async def test_event_that_goes_round_is_waited_for(database_url: str) -> None:
    """The first subscription is looked at, then the second one emits to it and is looked at: both had nothing to do."""
    emitting, counting = asyncio.Event(), asyncio.Event()
    settings = Settings(log="memory", database=database_url, partitions=1)
    events = Headrace("shop", settings)
    app = FastAPI(lifespan=events.lifespan)

    @events.subscription("counting").on(Paid)
    async def note(event: Paid, payments: State[Payments]) -> None:
        await counting.wait()
        payments.paid += 1

    @events.subscription("paying").on(Placed)
    async def pay(event: Placed) -> Paid:
        await emitting.wait()
        return Paid(order=event.order)

    async with running(app) as service:
        log = service.runtime.log
        assert isinstance(log, MemoryLog)
        await until(lambda: _has_taken_over(service), "both have their partition")
        await service.publish(Placed(order="1"))
        topics, calls = log.topics, count(1)

        async def slow_topics(names: Sequence[str]) -> dict[str, TopicInfo]:
            """Let the payment go round before the answer; it is counted when `quiet` has looked again."""
            if "orders" in names:
                emitting.set()
                await until(lambda: _has_emitted(service), "the payment is in the log, and its relay has nothing left")
            if next(calls) > 2:
                counting.set()
            return await topics(names)

        log.topics = slow_topics  # type: ignore[method-assign]
        try:
            await service.quiet()
            assert (await service.state(Payments, "1")).paid == 1
        finally:
            counting.set()


def _has_taken_over(service: Service) -> bool:
    return all(
        each.workers and each.workers[0].tenure is not None and each.workers[0].tenure.holdings
        for each in service.runtime.consumers.values()
    )


def _has_emitted(service: Service) -> bool:
    tenure = service.runtime.consumers["paying"].workers[0].tenure
    assert tenure is not None
    return all(held.claim.next_offset == 1 and not held.relay.pending for held in tenure.holdings.values())
