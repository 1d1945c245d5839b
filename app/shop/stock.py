"""How many of each kind of goods are in the store, and how many of them are put aside for orders."""

from __future__ import annotations

from pydantic import BaseModel

from headrace import State
from shop.events import ReleaseStock, ReserveStock, StockAdded, StockRefused, StockReserved
from shop.platform import events

stock = events.subscription("stock")


class Stock(BaseModel):
    """One kind of goods."""

    available: int = 0
    reserved: int = 0


@stock.on(StockAdded)
def add(event: StockAdded, stock: State[Stock]) -> None:
    """Add what came in."""
    stock.available += event.quantity


@stock.on(ReserveStock)
def reserve(event: ReserveStock, stock: State[Stock]) -> StockReserved | StockRefused:
    """Put goods aside for an order, if there are enough."""
    if stock.available < event.quantity:
        return StockRefused(order=event.order, reason=f"out of stock: {event.sku}")
    stock.available -= event.quantity
    stock.reserved += event.quantity
    return StockReserved(order=event.order, sku=event.sku, quantity=event.quantity)


@stock.on(ReleaseStock)
def release(event: ReleaseStock, stock: State[Stock]) -> None:
    """Put goods back."""
    stock.available += event.quantity
    stock.reserved -= event.quantity
