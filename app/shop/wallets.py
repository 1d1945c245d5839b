"""The balance of every customer's wallet."""

from __future__ import annotations

from pydantic import BaseModel

from headrace import State
from shop.events import WalletCredited, WalletDebited, WalletOverdrawn
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
