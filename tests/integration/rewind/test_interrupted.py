"""What a rewind does to sagas, and what is left of one that does not come to its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from pydantic import BaseModel

from headrace import Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.rewind.plan import Target
from tests.integration.rewind.support import Counts, Sold, go_back, numbers, shop, sold
from tests.support.auditing import assert_promises_hold
from tests.support.platform import execute, fetch, publish, record, running, settings_for, states, until_settled, value
from tests.support.waiting import until

IS_HELD = "select rewind_began_at is not null from headrace.subscription where subscription = 'shop.sales'"


class Placed(Event, type="placed", topic="orders", key="order"):
    order: str


class Reserve(Event, type="reserve", topic="commands", key="order"):
    order: str


class Reserved(Event, type="reserved", topic="orders", key="order"):
    order: str


class Order(BaseModel):
    order: str


async def test_a_saga_is_open_again_as_it_was(database_url: str) -> None:
    """Its commands have their first ids, its reply is met again, and the timer of its step is what it was."""
    platform = Headrace("shop", settings_for(database_url, partitions=1))
    orders = platform.saga("orders", Order)

    @orders.start(Placed)
    def begin(event: Placed) -> Order:
        return Order(order=event.order)

    @orders.step(done=Reserved, within=3_600)
    def reserve(order: Order) -> Reserve:
        return Reserve(order=order.order)

    @platform.subscription("stock").on(Reserve)
    def answer(event: Reserve, kept: State[Counts]) -> Reserved:
        kept.numbers.append(1)
        return Reserved(order=event.order)

    async def sagas() -> dict[str, tuple[str, bool]]:
        rows = await fetch(runtime, "select key, status, ended_at is null as is_open from headrace.saga")
        return {row["key"]: (row["status"], row["is_open"]) for row in rows}

    def placed(order: str) -> NewRecord:
        return record("orders", "placed", {"order": order}, key=order)

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, placed("a"), placed("b"))
        await until_settled(runtime, "orders", "stock", "orders")
        await publish(runtime, placed("c"))
        done = dict.fromkeys("abc", ("completed", False))
        await until(lambda: is_so(sagas, done), "all sagas are completed")
        await execute(database_url, "insert into headrace.subscription values ('shop.orders', true)")
        await go_back(runtime, database_url, "orders", Target(offset=2, partition=0))
        assert await sagas() == {"a": ("running", True), "b": ("running", True)}
        assert await value(runtime, "select count(*) from headrace.timer") == 2
        await execute(database_url, "update headrace.subscription set paused = false")
        await until(lambda: is_so(sagas, done), "all sagas are completed again")
        assert await value(runtime, "select count(*) from headrace.timer") == 0
        assert {key: kept["numbers"] for key, kept in (await states(runtime, "stock", "counts")).items()} == {
            order: [1] for order in "abc"
        }
    await assert_promises_hold(database_url)


async def test_a_rewind_that_is_interrupted_changes_nothing(database_url: str) -> None:
    """It is cut short while the states of then are made, and the subscription goes on."""
    is_held, entered, opened = threading.Event(), threading.Event(), threading.Event()

    def wait(event: Sold) -> None:
        if is_held.is_set():
            entered.set()
            assert opened.wait(60)

    platform = shop(settings_for(database_url, partitions=1), wait)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold("a", 1), sold("a", 2))
        await until_settled(runtime, "sales", "counts")
        is_held.set()
        task = asyncio.create_task(go_back(runtime, database_url, target=Target(offset=1, partition=0)))
        await until(entered.is_set, "the states of then are being made")
        assert await value(runtime, IS_HELD)
        is_held.clear()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await value(runtime, IS_HELD)
        opened.set()
        await publish(runtime, sold("a", 3))
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2, 3]}
        assert await value(runtime, "select count(*) from headrace.claim_move") == 0
    await assert_promises_hold(database_url)


async def is_so(read: Callable[[], Awaitable[object]], expected: object) -> bool:
    return await read() == expected
