"""Wallets as the shop has them, with a name, topics and a kind of handlers that the test chooses."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel, PositiveInt

from headrace import Event, Headrace, State
from tests.apps import kind

NAME = kind.name("wallets")

events = Headrace(NAME)
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)


class Credited(Event, type="wallet.credited", topic=NAME, key="customer"):
    """Money came into a customer's wallet."""

    customer: str
    amount: PositiveInt


class Debited(Event, type="wallet.debited", topic=NAME, key="customer"):
    """Money left a customer's wallet."""

    customer: str
    amount: PositiveInt


class Overdrawn(Event, type="wallet.overdrawn", topic=f"{NAME}-alerts", key="customer"):
    """A debit took a wallet below zero."""

    customer: str
    balance: int


class Wallet(BaseModel):
    """One customer's wallet; `applied` counts the events that made it."""

    balance: int = 0
    credits: int = 0
    debits: int = 0
    applied: int = 0


class Alert(BaseModel):
    """One customer's alerts."""

    count: int = 0
    lowest: int = 0


wallets = events.subscription("wallets")
alerts = events.subscription("alerts")


@wallets.on(Credited)
@kind.of_asked_kind
def credit(event: Credited, wallet: State[Wallet]) -> None:
    """Add to the balance."""
    wallet.balance += event.amount
    wallet.credits += 1
    wallet.applied += 1


@wallets.on(Debited)
@kind.of_asked_kind
def debit(event: Debited, wallet: State[Wallet]) -> Overdrawn | None:
    """Take from the balance; tell of each debit that leaves it below zero."""
    wallet.balance -= event.amount
    wallet.debits += 1
    wallet.applied += 1
    return Overdrawn(customer=event.customer, balance=wallet.balance) if wallet.balance < 0 else None


@alerts.on(Overdrawn)
@kind.of_asked_kind
def note(event: Overdrawn, alert: State[Alert]) -> None:
    """Count the alert."""
    alert.count += 1
    alert.lowest = min(alert.lowest, event.balance)
