"""Takes an order through the shop: goods are put aside, then paid; what fails is undone, and the customer is told."""

from __future__ import annotations

from datetime import timedelta

from shop.events import (
    ChargeRefused,
    ChargeWallet,
    OrderConfirmed,
    OrderPlaced,
    OrderRejected,
    RefundWallet,
    ReleaseStock,
    ReserveStock,
    StockRefused,
    StockReserved,
    WalletCharged,
)
from shop.orders import Order
from shop.platform import events

checkout = events.saga("checkout", Order)


@checkout.start(OrderPlaced)
def begin(event: OrderPlaced) -> Order:
    """Begin with what the customer has ordered."""
    return Order.of(event)


@checkout.step(done=StockReserved, failed=StockRefused, within=timedelta(minutes=10))
def reserve_stock(order: Order) -> list[ReserveStock]:
    """Put the goods aside, each kind where it is kept."""
    return [ReserveStock(order=order.order, sku=line.sku, quantity=line.quantity) for line in order.items]


@reserve_stock.undo
def release_stock(order: Order, reserved: StockReserved) -> ReleaseStock:
    """Put back what was put aside."""
    return ReleaseStock(order=order.order, sku=reserved.sku, quantity=reserved.quantity)


@checkout.step(done=WalletCharged, failed=ChargeRefused, within=timedelta(minutes=10))
def charge_wallet(order: Order) -> ChargeWallet:
    """Take the money."""
    return ChargeWallet(order=order.order, customer=order.customer, amount=order.total)


@charge_wallet.undo
def refund_wallet(order: Order, charged: WalletCharged) -> RefundWallet:
    """Give the money back."""
    return RefundWallet(order=order.order, customer=order.customer, amount=charged.amount)


@checkout.completed
def confirm(order: Order) -> OrderConfirmed:
    """Tell that all went well."""
    return OrderConfirmed(order=order.order)


@checkout.compensated
def reject(order: Order, reason: str) -> OrderRejected:
    """Tell why it came to nothing."""
    return OrderRejected(order=order.order, reason=reason)
