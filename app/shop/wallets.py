"""The balance of every customer's wallet."""

from __future__ import annotations

from pydantic import BaseModel

from headrace import State
from shop.events import (
    ChargeRefused,
    ChargeWallet,
    RefundWallet,
    WalletCharged,
    WalletCredited,
    WalletDebited,
    WalletOverdrawn,
)
from shop.platform import events

wallets = events.subscription("wallets")


class Wallet(BaseModel):
    """One customer's wallet; `applied` counts the events that made it."""

    balance: int = 0
    credits: int = 0
    debits: int = 0
    applied: int = 0


@wallets.on(WalletCredited)
def credit(event: WalletCredited, wallet: State[Wallet]) -> None:
    """Add to the balance."""
    wallet.balance += event.amount
    wallet.credits += 1
    wallet.applied += 1


@wallets.on(WalletDebited)
def debit(event: WalletDebited, wallet: State[Wallet]) -> WalletOverdrawn | None:
    """Take from the balance; tell of each debit that leaves it below zero."""
    wallet.balance -= event.amount
    wallet.debits += 1
    wallet.applied += 1
    if wallet.balance < 0:
        return WalletOverdrawn(customer=event.customer, balance=wallet.balance)
    return None


@wallets.on(ChargeWallet)
def charge(event: ChargeWallet, wallet: State[Wallet]) -> WalletCharged | ChargeRefused:
    """Take the price of an order, if the wallet has it."""
    wallet.applied += 1
    if wallet.balance < event.amount:
        reason = f"{event.customer} cannot pay {event.amount}"
        return ChargeRefused(order=event.order, reason=reason)
    wallet.balance -= event.amount
    wallet.debits += 1
    return WalletCharged(order=event.order, amount=event.amount)


@wallets.on(RefundWallet)
def refund(event: RefundWallet, wallet: State[Wallet]) -> None:
    """Give back the price of an order."""
    wallet.balance += event.amount
    wallet.credits += 1
    wallet.applied += 1
