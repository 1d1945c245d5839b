"""The example service `shop` again, with msgspec types: same topic, same handlers, same promises."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import FastAPI

from headrace import Headrace, State, event

events = Headrace("shop")
wallets = events.subscription("wallets")

Amount = Annotated[int, msgspec.Meta(gt=0)]


@event(type="wallet.credited", topic="wallets", key="customer")
class WalletCredited(msgspec.Struct):
    """Money came into a customer's wallet."""

    customer: str
    amount: Amount


@event(type="wallet.debited", topic="wallets", key="customer")
class WalletDebited(msgspec.Struct):
    """Money left a customer's wallet."""

    customer: str
    amount: Amount


@event(type="wallet.overdrawn", topic="alerts", key="customer")
class WalletOverdrawn(msgspec.Struct):
    """A debit took a wallet below zero."""

    customer: str
    balance: int


events.declare(WalletOverdrawn)


class Wallet(msgspec.Struct):
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
    return WalletOverdrawn(event.customer, wallet.balance) if wallet.balance < 0 else None


app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
