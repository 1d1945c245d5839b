"""What a customer sees of an order: `GET /state/orders/order/{order}`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel

from headrace import State
from shop.events import Line, OrderConfirmed, OrderPlaced, OrderRejected
from shop.platform import events

orders = events.subscription("orders")


class Order(BaseModel):
    """One order."""

    order: str = ""
    customer: str = ""
    items: list[Line] = []
    total: int = 0
    status: Literal["placed", "confirmed", "rejected"] = "placed"
    reason: str | None = None

    @classmethod
    def of(cls, event: OrderPlaced) -> Self:
        """Return what a new order looks like."""
        return cls(order=event.order, customer=event.customer, items=event.items, total=event.total)


@orders.on(OrderPlaced)
def place(event: OrderPlaced, order: State[Order]) -> None:
    """Note what was ordered; a second order of the same number changes nothing."""
    if not order.order:
        order.order, order.customer, order.items, order.total = event.order, event.customer, event.items, event.total


@orders.on(OrderConfirmed)
def confirm(event: OrderConfirmed, order: State[Order]) -> None:
    """Note that the customer gets the goods."""
    order.status = "confirmed"


@orders.on(OrderRejected)
def reject(event: OrderRejected, order: State[Order]) -> None:
    """Note why the customer does not."""
    order.status, order.reason = "rejected", event.reason
