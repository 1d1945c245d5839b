"""A service whose events cause trouble, as their customer's name asks for: what dashboards are shown with."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel

from headrace import Aggregate, Emit, Event, Headrace, Outbox, State, Table, Window, applies, keep
from headrace.errors import VersionConflictError

events = Headrace("shop")
app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)

BANK_IS_AWAY = Path("bank-is-away")
REBUILD_SECONDS = "REBUILD_SECONDS"
"""The environment's: how long a rebuild takes for each event."""
LARGE = random.Random(1).randbytes(80_000).hex()
"""Text that no compression makes small."""


class WalletCredited(Event, type="wallet.credited", topic="wallets", key="customer"):
    """Money comes in."""

    customer: str
    amount: int


class WalletAudited(Event, type="wallet.audited", topic="wallets", key="customer"):
    """Somebody looks at a wallet, and blocks the event loop."""

    customer: str


class WalletTold(Event, type="wallet.told", topic="alerts", key="customer"):
    """A customer is told; `LARGE` is more than the topic takes."""

    customer: str
    text: str = ""


class PaymentTaken(Event, type="payment.taken", topic="payments", key="customer"):
    """The bank is asked for money."""

    customer: str


class WithdrawalAsked(Event, type="withdrawal.asked", topic="payments", key="customer"):
    """A customer wants money: the start of a saga of one step."""

    customer: str


class Withdraw(Event, type="withdraw", topic="payments", key="customer", internal=True):
    """The saga's command."""

    customer: str


class Withdrawn(Event, type="withdrawn", topic="payments", key="customer", internal=True):
    """The answer that lets the saga complete."""

    customer: str


class WithdrawalRefused(Event, type="withdrawal.refused", topic="payments", key="customer", internal=True):
    """The answer that lets the saga end compensated."""

    customer: str
    reason: str = "there is not enough"


class Withdrawal(BaseModel):
    """What the saga knows."""

    customer: str


class Deposited(Event, type="account.deposited", topic="accounts", key="account"):
    """An account has more."""

    account: str
    amount: int = 1


@dataclass
class Balance:
    """What an account has."""

    amount: int = 0


class Account(Aggregate[Balance], stream="account"):
    """An aggregate."""

    def deposit(self) -> None:
        """Have more."""
        self.emit(Deposited(account=self.key))

    @applies(Deposited)
    def deposited(self, event: Deposited) -> None:
        """Have more."""
        self.state.amount += event.amount


class Total(BaseModel):
    """A row of the projection: how much one account was given."""

    account: str
    amount: int = 0


class Wallet(BaseModel):
    """What a customer has."""

    balance: int = 0


@keep(ttl=timedelta(seconds=5))
class Taught(BaseModel):
    """What a customer was told last; rows are removed ten minutes behind their end."""

    text: str = ""


class Spent(BaseModel):
    """What a customer's withdrawals come to in a window."""

    withdrawals: int = 0


wallets = events.subscription("wallets", attempts=3, first_seconds=3, max_seconds=3)
alerts = events.subscription("alerts")
mails = events.subscription("mails")
payments = events.subscription("payments", attempts=2, first_seconds=0.2, at_end="hold", outage=ConnectionError)


totals = events.projection("totals", Total, key="account")

withdrawal = events.saga("withdrawal", Withdrawal)
events.declare(Withdraw)
events.declare(Account)


@totals.on(Deposited)
def add_up(event: Deposited, rows: Table[Total]) -> None:
    """Add; slowly if the environment says so."""
    time.sleep(float(os.environ.get(REBUILD_SECONDS, "0")))
    rows.add(event.account, amount=event.amount)


@withdrawal.start(WithdrawalAsked)
def begin(event: WithdrawalAsked) -> Withdrawal:
    """Begin."""
    return Withdrawal(customer=event.customer)


@withdrawal.step(done=Withdrawn, failed=WithdrawalRefused, within=timedelta(minutes=1))
def withdraw(data: Withdrawal) -> Withdraw:
    """Ask for the money."""
    return Withdraw(customer=data.customer)


@payments.on(Withdraw)
def hand_out(event: Withdraw) -> Withdrawn | WithdrawalRefused:
    """Hand the money out, or refuse."""
    if event.customer.startswith("poor"):
        return WithdrawalRefused(customer=event.customer)
    return Withdrawn(customer=event.customer)


@wallets.on(WalletCredited)
def credit(event: WalletCredited, wallet: State[Wallet], emit: Emit) -> None:
    """Take the money, or make the trouble that the name asks for."""
    trouble = event.customer.partition("-")[0]
    if trouble == "failing":
        raise ValueError("this customer cannot be credited")
    if trouble in ("slow", "hanging"):
        time.sleep(1.5 if trouble == "slow" else 6)
    if trouble == "killing":
        os._exit(9)
    wallet.balance += event.amount
    if trouble == "telling":
        emit(WalletTold(customer=event.customer))
    if trouble == "waiting":
        emit(WalletTold(customer=event.customer), after=timedelta(seconds=3))
    if trouble == "shouting":
        emit(WalletTold(customer=event.customer, text=LARGE))


@wallets.on(WalletAudited)
async def look(event: WalletAudited) -> None:
    """Block the event loop, as no handler should."""
    time.sleep(0.3)  # noqa: ASYNC251


@alerts.on(WalletTold)
def tell(event: WalletTold, taught: State[Taught]) -> None:
    """Tell nobody, and remember it for a while."""
    taught.text = event.text[:100] + str(random.random())


@mails.effect(WalletTold)
async def mail(event: WalletTold) -> None:
    """Send nobody a mail."""


@payments.on(PaymentTaken)
def take(event: PaymentTaken) -> None:
    """Ask the bank, which may be away."""
    if BANK_IS_AWAY.exists():
        raise ConnectionError("the bank does not answer")
    if event.customer.startswith("failing"):
        raise ValueError("this customer has no account")


spending = events.windows("spending", Spent, size=timedelta(seconds=2))


@spending.on(WithdrawalAsked)
def spend(spent: Spent, event: WithdrawalAsked) -> None:
    """Count a withdrawal."""
    spent.withdrawals += 1


@spending.closed
def end_spending(spent: Spent, window: Window) -> None:
    """Tell nobody what it came to."""


@app.post("/tell/{customer}", status_code=202)
async def tell_later(customer: str, tx: Outbox) -> None:
    """Emit from a route, through the outbox."""
    tx.emit(WalletTold(customer=customer, text=LARGE if customer == "shouting" else ""))


@app.post("/accounts/{account}/deposits", status_code=202)
async def deposit(account: str, is_stale: bool = False) -> None:
    """Change an aggregate; if it is stale, another writer was faster."""
    store = events.store()
    loaded = await store.load(Account, account)
    loaded.deposit()
    if is_stale:
        await store.update(Account, account, Account.deposit)
    with suppress(VersionConflictError):
        await store.save(loaded)
