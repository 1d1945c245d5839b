"""A service whose handlers write SQL of their own and keep no state: an upsert per event, through `Transaction`."""

from __future__ import annotations

import os

from fastapi import FastAPI
from pydantic import PositiveInt

from bench.peers.inbox import UPSERT
from headrace import Event, Headrace, Transaction

TOPIC = os.environ["TOPIC"]

events = Headrace("shop")
wallets = events.subscription("wallets")


class WalletCredited(Event, type="wallet.credited", topic=TOPIC, key="customer"):
    """Money came into a customer's wallet."""

    customer: str
    amount: PositiveInt


class WalletDebited(Event, type="wallet.debited", topic=TOPIC, key="customer"):
    """Money left a customer's wallet."""

    customer: str
    amount: PositiveInt


@wallets.on(WalletCredited)
async def credit(event: WalletCredited, transaction: Transaction) -> None:
    """Add to the balance."""
    await transaction.execute(UPSERT, event.customer, event.amount, 1, 0)


@wallets.on(WalletDebited)
async def debit(event: WalletDebited, transaction: Transaction) -> None:
    """Take from the balance."""
    await transaction.execute(UPSERT, event.customer, -event.amount, 0, 1)


app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
