"""A service with msgspec types whose load the environment sets: `EMITS` per event, `SUBSCRIPTIONS` on the topic."""

from __future__ import annotations

import os

import msgspec
from fastapi import FastAPI

from bench.peers.headrace_msgspec import Amount, Wallet
from headrace import Emit, Headrace, State, event

TOPIC = os.environ["TOPIC"]
EMITS = int(os.environ.get("EMITS", "0"))
SUBSCRIPTIONS = int(os.environ.get("SUBSCRIPTIONS", "1"))

events = Headrace("shop")


@event(type="wallet.credited", topic=TOPIC, key="customer")
class WalletCredited(msgspec.Struct):
    """Money came into a customer's wallet."""

    customer: str
    amount: Amount
    note: str = ""


@event(type="wallet.debited", topic=TOPIC, key="customer")
class WalletDebited(msgspec.Struct):
    """Money left a customer's wallet."""

    customer: str
    amount: Amount
    note: str = ""


@event(type="wallet.changed", topic="alerts", key="customer")
class WalletChanged(msgspec.Struct):
    """A wallet has another balance."""

    customer: str
    balance: int


events.declare(WalletChanged)


def subscribe(name: str) -> None:
    """Declare a subscription that keeps the wallets."""
    wallets = events.subscription(name)

    @wallets.on(WalletCredited)
    def credit(event: WalletCredited, wallet: State[Wallet], emit: Emit) -> None:
        wallet.balance += event.amount
        wallet.credits += 1
        wallet.applied += 1
        for _ in range(EMITS):
            emit(WalletChanged(event.customer, wallet.balance))

    @wallets.on(WalletDebited)
    def debit(event: WalletDebited, wallet: State[Wallet], emit: Emit) -> None:
        wallet.balance -= event.amount
        wallet.debits += 1
        wallet.applied += 1
        for _ in range(EMITS):
            emit(WalletChanged(event.customer, wallet.balance))


for number in range(SUBSCRIPTIONS):
    subscribe(f"wallets-{number}")

app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
