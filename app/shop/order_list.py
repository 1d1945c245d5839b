"""The list of orders, to be looked through: `/orders?customer=ada&sort=-total`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from headrace import Envelope, Table
from shop.events import OrderConfirmed, OrderPlaced, OrderRejected
from shop.platform import events


class OrderRow(BaseModel):
    """One order, as a row of `projections.order_list`."""

    order: str
    customer: str
    total: int
    goods: int
    status: Literal["placed", "confirmed", "rejected"] = "placed"
    reason: str | None = None
    placed_at: datetime | None = None


order_list = events.projection("order-list", OrderRow, key="order", indexes=["customer", ("status", "total")])


@order_list.on(OrderPlaced)
def place(event: OrderPlaced, envelope: Envelope, rows: Table[OrderRow]) -> None:
    """Add the order."""
    goods = sum(line.quantity for line in event.items)
    rows.put(
        OrderRow(order=event.order, customer=event.customer, total=event.total, goods=goods, placed_at=envelope.time)
    )


@order_list.on(OrderConfirmed)
def confirm(event: OrderConfirmed, rows: Table[OrderRow]) -> None:
    """Note that the customer gets the goods."""
    rows.change(event.order, status="confirmed")


@order_list.on(OrderRejected)
def reject(event: OrderRejected, rows: Table[OrderRow]) -> None:
    """Note why the customer does not."""
    rows.change(event.order, status="rejected", reason=event.reason)
