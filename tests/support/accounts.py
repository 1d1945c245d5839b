"""A bank: an account is an aggregate, and a handler notes what arrives of its events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from headrace import Aggregate, Event, Headrace, State, applies
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.platform import states
from tests.support.waiting import until


class Deposited(Event, type="account.deposited", topic="accounts", key="account"):
    account: str
    amount: int


class Withdrawn(Event, type="account.withdrawn", topic="accounts", key="account"):
    account: str
    amount: int


@dataclass
class Balance:
    amount: int = 0
    applied: int = 0


class Account(Aggregate[Balance], snapshot_every=10):
    def deposit(self, amount: int) -> None:
        self.emit(Deposited(account=self.key, amount=amount))

    def withdraw(self, amount: int) -> None:
        if amount > self.state.amount:
            raise ValueError(f"{self.key} has {self.state.amount}")
        self.emit(Withdrawn(account=self.key, amount=amount))

    @applies(Deposited)
    def deposited(self, event: Deposited) -> None:
        self.state.amount += event.amount
        self.state.applied += 1

    @applies(Withdrawn)
    def withdrawn(self, event: Withdrawn) -> None:
        self.state.amount -= event.amount
        self.state.applied += 1


class Arrived(BaseModel):
    """What arrived of one account, in order: a lost, a doubled and an overtaken event each show."""

    amounts: list[int] = []


def deposit(amount: int, account: str = "ada") -> Deposited:
    """Return what an account was given."""
    return Deposited(account=account, amount=amount)


def bank(settings: Settings) -> Headrace:
    """Return the service."""
    platform = Headrace("bank", settings)
    platform.declare(Account)
    arrivals = platform.subscription("arrivals")

    @arrivals.on(Deposited)
    def deposited(event: Deposited, arrived: State[Arrived]) -> None:
        arrived.amounts.append(event.amount)

    @arrivals.on(Withdrawn)
    def withdrawn(event: Withdrawn, arrived: State[Arrived]) -> None:
        arrived.amounts.append(-event.amount)

    return platform


def running_one(platform: Headrace) -> Runtime:
    """Return what runs."""
    assert platform.runtime is not None
    return platform.runtime


async def has_arrived(platform: Headrace, expected: dict[str, list[int]]) -> None:
    """Wait until these amounts have arrived, in this order, and nothing else."""
    runtime, found = running_one(platform), dict[str, Any]()

    async def is_so() -> bool:
        nonlocal found
        found = {key: each["amounts"] for key, each in (await states(runtime, "arrivals", "arrived")).items()}
        return found == expected

    await until(is_so, f"{expected} has arrived")
