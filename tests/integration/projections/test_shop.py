"""The shop's list of orders: what every customer has ordered, and what became of it."""

from __future__ import annotations

import pytest

from headrace.log.memory import MemoryLog
from shop import order_list, service
from shop.platform import events
from tests.support.platform import running, settings_for
from tests.support.routes import application, caller
from tests.support.waiting import until


async def test_orders_are_listed_with_what_became_of_them(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_settings", settings_for(database_url))
    app = application(events)
    app.include_router(order_list.order_list.router("/orders"))
    assert service.checkout.checkout.name in events.registry.sagas
    async with running(events, MemoryLog()), caller(app) as client:
        await client.post("/events/wallet.credited", json={"customer": "ada", "amount": 100})
        await client.post("/events/stock.added", json={"sku": "mill", "quantity": 5})
        await client.get("/state/wallets/wallet/ada?after=now&wait=20")
        await client.get("/state/stock/stock/mill?after=now&wait=20")
        for order, total in (("order-1", 60), ("order-2", 70)):
            items = [{"sku": "mill", "quantity": 2}]
            data = {"order": order, "customer": "ada", "items": items, "total": total}
            accepted = (await client.post("/events/order.placed", json=data)).json()

            # Whoever has placed an order sees it in the list, however busy the shop is.
            listed = (await client.get(f"/orders?after={accepted['positions'][0]}&wait=20")).json()["rows"]
            assert order in [row["order"] for row in listed]

            async def has_ended(order: str = order) -> bool:
                return bool((await client.get(f"/orders/{order}")).json()["status"] != "placed")

            await until(has_ended, f"{order} has come to its end")
        answer = (await client.get("/orders?customer=ada&sort=-total")).json()
        assert [(row["order"], row["status"], row["reason"], row["goods"]) for row in answer["rows"]] == [
            ("order-2", "rejected", "ada cannot pay 70", 2),
            ("order-1", "confirmed", None, 2),
        ]
        assert (await client.get("/orders?status=placed")).json() == {"rows": [], "next": None}
