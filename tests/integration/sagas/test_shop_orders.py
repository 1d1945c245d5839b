"""An order of the shop is confirmed with its goods put aside and paid, or rejected with both untouched."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio

from headrace import Event
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.publishing.publisher import checked_event
from headrace.runtime import Runtime
from headrace.telemetry.trace_context import current
from shop.events import Line, OrderPlaced, StockAdded, WalletCredited
from shop.platform import events
from shop.service import checkout
from tests.support.auditing import assert_promises_hold
from tests.support.platform import (
    client,
    execute,
    fetch,
    publish,
    running,
    sample,
    settings_for,
    states,
    value,
    watched,
)
from tests.support.waiting import until


class Shop:
    """The shop as its customers and its store see it."""

    def __init__(self, runtime: Runtime, http: httpx.AsyncClient) -> None:
        self.runtime = runtime
        self.http = http

    async def has(self, *happened: Event) -> None:
        """Let events happen."""
        await publish(self.runtime, *(_record(event) for event in happened))

    async def ends(self, order: str) -> dict[str, Any]:
        """Return what has become of the order, once its saga has ended."""

        async def ended() -> bool:
            self._answer = await self.http.get(f"/sagas/checkout/{order}", params={"wait": 5})
            return self._answer.status_code == 200 and self._answer.json()["ended_at"] is not None

        await until(ended, f"the saga of {order} has ended")
        answer: dict[str, Any] = self._answer.json()
        return answer

    async def read(self, subscription: str, state: str) -> dict[str, Any]:
        """Return every value of a state, by key."""
        return await states(self.runtime, subscription, state)

    async def is_quiet(self, available: dict[str, int]) -> None:
        """Wait until so many goods are available again."""

        async def is_so() -> bool:
            return {sku: each["available"] for sku, each in (await self.read("stock", "stock")).items()} == available

        await until(is_so, f"{available} is available")


@asynccontextmanager
async def open_shop(log: MemoryLog, run: Any = running) -> AsyncIterator[Shop]:
    """Open the shop on a log."""
    async with run(events, log) as runtime, client(events) as http:
        yield Shop(runtime, http)


@pytest_asyncio.fixture
async def shop(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """A shop with two bottles and one lamp, and ada, who has 100."""
    monkeypatch.setattr(events, "_settings", settings_for(database_url))
    async with open_shop(MemoryLog()) as shop:
        await shop.has(
            StockAdded(sku="bottle", quantity=2),
            StockAdded(sku="lamp", quantity=1),
            WalletCredited(customer="ada", amount=100),
        )
        await shop.is_quiet({"bottle": 2, "lamp": 1})
        await until(lambda: shop.read("wallets", "wallet"), "ada has money")
        yield shop


def order(number: str, total: int, customer: str = "ada", **items: int) -> OrderPlaced:
    """Return an order."""
    lines = [Line(sku=sku, quantity=quantity) for sku, quantity in items.items()]
    return OrderPlaced(order=number, customer=customer, items=lines, total=total)


async def test_order_is_confirmed_with_goods_and_money_moved(shop: Shop) -> None:
    await shop.has(order("1", 60, bottle=1, lamp=1))
    saga = await shop.ends("1")
    assert (saga["status"], saga["reason"]) == ("completed", None)
    assert await shop.read("stock", "stock") == {
        "bottle": {"available": 1, "reserved": 1},
        "lamp": {"available": 0, "reserved": 1},
    }
    assert (await shop.read("wallets", "wallet"))["ada"]["balance"] == 40
    await until(lambda: _status(shop, "1", "confirmed"), "the customer sees it")


async def test_customer_who_cannot_pay_gets_nothing_and_pays_nothing(shop: Shop) -> None:
    await shop.has(order("1", 101, bottle=2, lamp=1))
    saga = await shop.ends("1")
    assert (saga["status"], saga["reason"]) == ("compensated", "ada cannot pay 101")
    await shop.is_quiet({"bottle": 2, "lamp": 1})
    assert (await shop.read("wallets", "wallet"))["ada"]["balance"] == 100
    await until(lambda: _status(shop, "1", "rejected"), "the customer sees it")


async def test_sku_that_is_out_of_stock_charges_nobody(shop: Shop) -> None:
    """The bottle that was put aside for the same order is put back."""
    await shop.has(order("1", 10, bottle=1, lamp=5))
    saga = await shop.ends("1")
    assert (saga["status"], saga["reason"]) == ("compensated", "out of stock: lamp")
    await shop.is_quiet({"bottle": 2, "lamp": 1})
    assert (await shop.read("wallets", "wallet"))["ada"] == {"balance": 100, "credits": 1, "debits": 0, "applied": 1}


async def test_order_that_the_store_does_not_answer_times_out(shop: Shop) -> None:
    """The store wakes up later and puts the bottle aside: it is put back again."""
    await shop.http.post("/subscriptions/stock/pause")
    stock = shop.runtime.consumers["stock"]
    await until(lambda: all(each.orders.is_paused for each in stock.workers.values()), "the store sleeps")
    await shop.has(order("1", 10, bottle=1))
    await until(lambda: _stands(shop, "1", "reserve_stock"), "the store is asked")
    await _let_time_pass(shop)
    saga = await shop.ends("1")
    assert (saga["status"], saga["reason"]) == ("timed_out", "reserve_stock was not answered in time")
    await shop.http.post("/subscriptions/stock/resume")
    await until(lambda: _is_undone(shop, "1"), "the late answer has come")
    await shop.is_quiet({"bottle": 2, "lamp": 1})
    assert (await shop.ends("1"))["status"] == "timed_out"


async def test_time_out_of_a_step_that_is_over_is_gone(shop: Shop) -> None:
    await shop.has(order("1", 60, bottle=1))
    await shop.ends("1")
    assert await shop.runtime.pool.fetchval("select count(*) from headrace.timer") == 0  # type: ignore[union-attr]


async def test_same_order_twice_is_one_order(shop: Shop) -> None:
    await shop.has(order("1", 60, bottle=1), order("1", 10, lamp=1), order("2", 1, lamp=1))
    await shop.ends("1")
    await shop.ends("2")
    assert (await shop.read("wallets", "wallet"))["ada"]["balance"] == 39


async def test_sagas_are_found_and_drawn(shop: Shop) -> None:
    await shop.has(order("1", 60, bottle=1), order("2", 500, lamp=1))
    saga, _ = await shop.ends("1"), await shop.ends("2")
    assert (saga["data"]["customer"], saga["step"], saga["awaited"]) == ("ada", None, 0)
    assert [entry["what"] for entry in saga["history"]] == [
        "started by order.placed",
        "reserve_stock: sends stock.reserve",
        "reserve_stock: stock.reserved",
        "charge_wallet: sends wallet.charge",
        "charge_wallet: wallet.charged",
        "completed",
    ]
    (declared,) = (await shop.http.get("/sagas")).json()["sagas"]
    assert (declared["saga"], declared["open"], declared["diagram"]) == ("checkout", 0, checkout.checkout.diagram)
    page = (await shop.http.get("/sagas/checkout", params={"limit": 1})).json()
    assert [each["key"] for each in page["sagas"]] == ["1"]
    rest = (await shop.http.get("/sagas/checkout", params={"after": page["next"]})).json()
    assert ([each["key"] for each in rest["sagas"]], rest["next"]) == (["2"], None)
    rejected = (await shop.http.get("/sagas/checkout", params={"status": "compensated"})).json()
    assert [each["key"] for each in rejected["sagas"]] == ["2"]
    for path in ("/sagas/other", "/sagas/other/1", "/sagas/checkout/3", "/sagas/checkout/%00"):
        assert (await shop.http.get(path)).status_code == 404, path
    assert sample(shop.runtime, "sagas_ended_total") == 2


async def test_sums_agree_exactly_over_many_orders(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners end in the middle, at any instant, and others go on; every order ends, and nothing is lost or made."""
    monkeypatch.setattr(events, "_settings", settings_for(database_url))
    chance, log = random.Random(5), MemoryLog()
    customers, skus = [f"customer-{n}" for n in range(10)], [f"sku-{n}" for n in range(6)]
    credited, added = dict.fromkeys(customers, 900), dict.fromkeys(skus, 40)
    orders = [
        order(
            str(n),
            chance.randint(1, 200),
            chance.choice(customers),
            **{sku: chance.randint(1, 3) for sku in chance.sample(skus, 2)},
        )
        for n in range(200)
    ]
    async with open_shop(log) as shop:
        await shop.has(*(StockAdded(sku=sku, quantity=each) for sku, each in added.items()))
        await shop.has(*(WalletCredited(customer=each, amount=amount) for each, amount in credited.items()))
        await shop.has(*orders)
    for _ in range(3):
        async with running(events, log, is_waiting=True) as runtime:
            for consumer in runtime.consumers.values():
                for worker in consumer.workers.values():
                    if worker.tenure is not None:
                        worker.tenure.abandon()
    async with open_shop(log, watched) as shop:
        await _end(shop, len(orders))
        await until(lambda: _are_told(shop, len(orders)), "every customer knows", 60)
        by_number = {each.order: each for each in orders}
        seen = await shop.read("orders", "order")
        confirmed = [by_number[number] for number, each in seen.items() if each["status"] == "confirmed"]
        assert 0 < len(confirmed) < len(orders), "some orders are confirmed, and some rejected"
        taken, paid = dict.fromkeys(skus, 0), dict.fromkeys(customers, 0)
        for each in confirmed:
            paid[each.customer] += each.total
            for line in each.items:
                taken[line.sku] += line.quantity
        await shop.is_quiet({sku: added[sku] - taken[sku] for sku in skus})
        assert {sku: each["reserved"] for sku, each in (await shop.read("stock", "stock")).items()} == taken
        wallets = await shop.read("wallets", "wallet")
        assert {each: wallets[each]["balance"] for each in customers} == {
            each: credited[each] - paid[each] for each in customers
        }
        assert await shop.runtime.pool.fetchval("select count(*) from headrace.dead_letter") == 0  # type: ignore[union-attr]
        await until(lambda: sample(shop.runtime, "sagas_open") == 0, "no saga is open")
    await assert_promises_hold(database_url)


def _record(event: Event) -> NewRecord:
    """Return the event as a route would publish it."""
    return checked_event(events.registry, event, current).record


async def _status(shop: Shop, number: str, status: str) -> bool:
    return bool((await shop.read("orders", "order"))[number]["status"] == status)


async def _stands(shop: Shop, number: str, step: str) -> bool:
    answer = await shop.http.get(f"/sagas/checkout/{number}")
    return answer.status_code == 200 and answer.json()["step"] == step


async def _is_undone(shop: Shop, number: str) -> bool:
    history = (await shop.http.get(f"/sagas/checkout/{number}")).json()["history"]
    return any("undo sends stock.release" in entry["what"] for entry in history)


async def _let_time_pass(shop: Shop) -> None:
    """Make every timer due, and let its owner look at the clock of Postgres."""
    await execute(events.settings.database.get_secret_value(), "update headrace.timer set due_at = clock_timestamp()")
    for worker in shop.runtime.consumers["checkout"].workers.values():
        if worker.tenure is not None:
            worker.tenure.memory.timers.learn(0.0)


async def _end(shop: Shop, count: int) -> None:
    """Wait until so many orders have ended. Raises: TimeoutError that tells what the others wait for."""
    ended = "select count(*) = $1 from headrace.saga where ended_at is not null"
    try:
        await until(lambda: value(shop.runtime, ended, count), "every order has ended", 120)
    except TimeoutError as error:
        for table, among in (
            ("saga", "ended_at is null"),
            ("lane", "true"),
            ("claim", "true"),
            ("dead_letter", "true"),
        ):
            rows = await fetch(shop.runtime, f"select * from headrace.{table} where {among} limit 20")
            error.add_note("\n".join([table, *(str(dict(row)) for row in rows)]))
        raise


async def _are_told(shop: Shop, count: int) -> bool:
    seen = await shop.read("orders", "order")
    return len(seen) == count and all(each["status"] != "placed" for each in seen.values())
