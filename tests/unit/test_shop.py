"""The shop's handlers, as a team tests its own: given events, when an order comes, then stock, money and answers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.testing import Handlers, assert_exactly_once
from shop import receipts
from shop.events import (
    Line,
    OrderConfirmed,
    OrderPlaced,
    OrderRejected,
    ReserveStock,
    StockAdded,
    WalletCredited,
    WalletDebited,
    WalletOverdrawn,
)
from shop.orders import Order
from shop.receipts import mail_gift_card
from shop.service import app
from shop.stock import Stock
from shop.wallets import Wallet


@pytest.fixture
def shop() -> Handlers:
    """A shop with two bottles, and ada, who has 100."""
    handlers = Handlers(app)
    handlers.given(StockAdded(sku="bottle", quantity=2), WalletCredited(customer="ada", amount=100))
    return handlers


def order(number: str, total: int, quantity: int = 1) -> OrderPlaced:
    return OrderPlaced(order=number, customer="ada", items=[Line(sku="bottle", quantity=quantity)], total=total)


def test_debit_below_zero_is_told(shop: Handlers) -> None:
    then = shop.when(WalletDebited(customer="ada", amount=130))
    assert then.emits == [WalletOverdrawn(customer="ada", balance=-30)]
    assert then.state(Wallet) == Wallet(balance=-30, credits=1, debits=1, applied=2)


def test_order_is_confirmed(shop: Handlers) -> None:
    then = shop.run(order("1", 60))
    assert then.emits[-1] == OrderConfirmed(order="1")
    assert shop.state(Stock, "bottle") == Stock(available=1, reserved=1)
    assert shop.state(Wallet, "ada").balance == 40
    assert shop.state(Order, "1").status == "confirmed"
    assert shop.timers == []


def test_customers_get_a_receipt_and_their_gift_card(shop: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    """An effect of the order, and a task that the route of gift cards leaves behind."""
    mails: list[tuple[str, str]] = []

    async def send_mail(about: str, text: str, *, idempotency_key: str) -> str:
        mails.append((about, text))
        return idempotency_key

    monkeypatch.setattr(receipts, "send_mail", send_mail)
    shop.run(order("1", 60))
    shop.when(mail_gift_card.event("spring", 50))
    assert mails == [("1", "your order is on its way"), ("spring", "a gift card of 50")]


@pytest.mark.parametrize(
    ("total", "quantity", "reason"), [(101, 1, "ada cannot pay 101"), (10, 3, "out of stock: bottle")]
)
def test_order_that_fails_leaves_all_as_it_was(total: int, quantity: int, reason: str, shop: Handlers) -> None:
    then = shop.run(order("1", total, quantity))
    assert OrderRejected(order="1", reason=reason) in then.emits
    assert shop.state(Stock, "bottle") == Stock(available=2)
    assert shop.state(Wallet, "ada").balance == 100


def test_order_that_nobody_answers_times_out(shop: Handlers) -> None:
    then = shop.when(order("1", 60), subscription="checkout")
    assert then.emits == [ReserveStock(order="1", sku="bottle", quantity=1)]
    assert [timer.after for timer in then.timers] == [timedelta(minutes=10)]
    shop.move(minutes=10)
    assert shop.saga("checkout", "1").status == "timed_out"


def test_shop_is_exactly_once() -> None:
    customers = ("ada", "bob")
    assert_exactly_once(
        app,
        [
            StockAdded(sku="bottle", quantity=2),
            *(WalletCredited(customer=name, amount=100) for name in customers),
            *(order(number, total) for number, total in (("1", 60), ("2", 60), ("3", 10), ("4", 10))),
            *(WalletDebited(customer=name, amount=90) for name in customers),
        ],
        runs=20,
    )
