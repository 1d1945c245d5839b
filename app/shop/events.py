"""What happens in the shop."""

from typing import Annotated

from pydantic import BaseModel, Field, PositiveInt

from headrace import Event


class WalletCredited(Event, type="wallet.credited", topic="wallets", key="customer"):
    """Money came into a customer's wallet."""

    customer: str
    amount: PositiveInt


class WalletDebited(Event, type="wallet.debited", topic="wallets", key="customer"):
    """Money left a customer's wallet."""

    customer: str
    amount: PositiveInt


class WalletOverdrawn(Event, type="wallet.overdrawn", topic="alerts", key="customer"):
    """A debit took a wallet below zero."""

    customer: str
    balance: int


class ChargeWallet(Event, type="wallet.charge", topic="wallets", key="customer", internal=True):
    """An order is to be paid from a customer's wallet."""

    order: str
    customer: str
    amount: PositiveInt


class RefundWallet(Event, type="wallet.refund", topic="wallets", key="customer", internal=True):
    """What an order took from a customer's wallet is to be given back."""

    order: str
    customer: str
    amount: PositiveInt


class GiftCardIssued(Event, type="giftcard.issued", topic="giftcards", key="card", internal=True):
    """Somebody bought a gift card."""

    card: str
    amount: PositiveInt


class GiftCardRedeemed(Event, type="giftcard.redeemed", topic="giftcards", key="card", internal=True):
    """A part of a gift card went into a customer's wallet."""

    card: str
    customer: str
    amount: PositiveInt


class StockAdded(Event, type="stock.added", topic="stock", key="sku"):
    """Goods came into the store."""

    sku: str
    quantity: PositiveInt


class ReserveStock(Event, type="stock.reserve", topic="stock", key="sku", internal=True):
    """Goods are to be put aside for an order."""

    order: str
    sku: str
    quantity: PositiveInt


class ReleaseStock(Event, type="stock.release", topic="stock", key="sku", internal=True):
    """Goods that were put aside for an order are to be put back."""

    order: str
    sku: str
    quantity: PositiveInt


class Line(BaseModel):
    """So many of one kind of goods."""

    sku: Annotated[str, Field(min_length=1, max_length=200)]
    quantity: PositiveInt


class OrderPlaced(Event, type="order.placed", topic="orders", key="order"):
    """A customer wants goods for a price."""

    order: str
    customer: str
    items: Annotated[list[Line], Field(min_length=1, max_length=100)]
    total: PositiveInt


class StockReserved(Event, type="stock.reserved", topic="orders", key="order", internal=True):
    """Goods are put aside for the order."""

    order: str
    sku: str
    quantity: PositiveInt


class StockRefused(Event, type="stock.refused", topic="orders", key="order", internal=True):
    """There are not enough goods for the order."""

    order: str
    reason: str


class WalletCharged(Event, type="wallet.charged", topic="orders", key="order", internal=True):
    """The order is paid."""

    order: str
    amount: PositiveInt


class ChargeRefused(Event, type="wallet.charge_refused", topic="orders", key="order", internal=True):
    """The customer's wallet has not enough money for the order."""

    order: str
    reason: str


class OrderConfirmed(Event, type="order.confirmed", topic="orders", key="order", internal=True):
    """The goods are put aside and paid."""

    order: str


class OrderRejected(Event, type="order.rejected", topic="orders", key="order", internal=True):
    """The order has come to nothing: no goods are put aside, and no money is taken."""

    order: str
    reason: str
