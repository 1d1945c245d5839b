"""Handlers that are not exactly once are caught, each with the smallest case; those that are pass."""

from __future__ import annotations

import datetime as dates
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from headrace import DeadLetter, Emit, Envelope, Event, Headrace, Skip, State, Transaction
from headrace.errors import ConfigurationError
from headrace.testing import NotExactlyOnceError, assert_exactly_once
from headrace.testing.exactly_once.outside import Outside


class Paid(Event, type="paid", topic="money", key="who"):
    who: str
    amount: int = 1


class Receipt(Event, type="receipt", topic="receipts", key="who"):
    who: str
    text: str = ""


class Wallet(BaseModel):
    balance: int = 0
    seen: str = ""


@dataclass
class Shelf:
    """What a team may keep in an object of its own."""

    items: list[int] = field(default_factory=list)


totals: dict[str, int] = {}
shelf = Shelf()
known: set[str] = set()
folder: Path

PAYMENTS = [Paid(who=who, amount=amount) for amount in range(1, 5) for who in ("ada", "bob", "eve")]


def check(handler: Callable[..., Any], events: list[Any] = PAYMENTS, **options: Any) -> None:
    """Check one handler of payments."""
    service = Headrace("bank")
    service.declare(Receipt)
    service.subscription("wallets").on(Paid)(handler)
    assert_exactly_once(service, events, **options)


def caught(handler: Callable[..., Any], **options: Any) -> NotExactlyOnceError:
    """Return how a handler is caught."""
    with pytest.raises(NotExactlyOnceError) as error:
        check(handler, **options)
    return error.value


def test_handler_that_keeps_to_its_state_passes() -> None:
    def pay(event: Paid, wallet: State[Wallet], envelope: Envelope, emit: Emit) -> Receipt:
        wallet.balance += event.amount
        if wallet.balance == 3:
            raise Skip("by verdict")
        if wallet.balance == 6:
            raise DeadLetter("too much")
        emit(Receipt(who=event.who), after=60)
        return Receipt(who=event.who, text=f"{envelope.id} {wallet.balance}")

    check(pay)


def test_total_in_a_global_is_caught() -> None:
    def pay(event: Paid, wallet: State[Wallet]) -> None:
        totals[event.who] = totals.get(event.who, 0) + event.amount
        wallet.balance = totals[event.who]

    error = caught(pay)
    assert len(error.events) == 1, "the smallest case is one event"
    assert str(error).splitlines()[0] == "wallets.pay is not exactly once: the state wallet of 'eve' differs."
    assert "rolled back; applied again." in str(error)
    assert "The handlers change test_exactly_once.totals" in str(error)
    assert totals == {}, "and everything is left as it was found"


def test_total_in_a_closure_is_caught() -> None:
    mine = 0

    def pay(event: Paid, wallet: State[Wallet]) -> None:
        nonlocal mine
        mine += event.amount
        wallet.balance = mine

    assert "The handlers change mine" in str(caught(pay))
    assert mine == 0


def test_order_across_keys_is_caught() -> None:
    """A rollback changes nothing here: it takes two keys, and a death or another order."""

    def pay(event: Paid, wallet: State[Wallet]) -> None:
        known.add(event.who)
        wallet.balance = sorted(known).index(event.who)

    error = caught(pay)
    assert len({event.who for event in error.events}) == len(error.events) == 2
    assert "change test_exactly_once.known" in str(error)


def test_memory_that_a_death_forgets_is_caught() -> None:
    """A rollback changes nothing here, and no other order of the keys does."""

    def pay(event: Paid, wallet: State[Wallet]) -> None:
        totals.setdefault(event.who, event.amount)
        wallet.balance = totals[event.who]

    error = caught(pay)
    assert [event.who for event in error.events] == ["eve", "eve"]
    assert "the process died before the commit; another one applied it." in str(error)


@pytest.mark.parametrize(
    "text",
    [
        lambda: str(uuid.uuid4()),
        lambda: str(random.randint(1, 1_000_000)),
        lambda: datetime.now(UTC).isoformat(),
        lambda: str(date.today()),  # noqa: DTZ011 - it is what must be caught
        lambda: str(dates.datetime.now(UTC).date()),
        lambda: str(int(time.time()) // 86_400),
    ],
)
def test_chance_and_clock_in_what_is_emitted_are_caught(text: Callable[[], str]) -> None:
    def pay(event: Paid) -> Receipt:
        return Receipt(who=event.who, text=text())

    error = caught(pay)
    assert str(error).startswith("wallets.pay is not exactly once: what it emits for event 1 differs.")
    assert "in the same order a second time" in str(error)
    assert "take ids and times from the event or its Envelope" in str(error)
    check(pay, ignore=["text"])


def test_timer_at_a_time_of_the_clock_is_caught() -> None:
    def pay(event: Paid, emit: Emit) -> None:
        emit(Receipt(who=event.who), at=datetime.now(UTC) + dates.timedelta(days=1))

    assert "what it emits for event 1 differs" in str(caught(pay))


def test_what_changes_outside_is_caught() -> None:
    def pay(event: Paid, wallet: State[Wallet]) -> None:
        shelf.items.append(event.amount)

    error = caught(pay)
    assert "it changes test_exactly_once.shelf, which no rollback undoes" in str(error)
    assert shelf.items == []


def test_class_attribute_that_changes_is_caught() -> None:
    class Seen:
        count = 0

    def pay(event: Paid, wallet: State[Wallet]) -> None:
        Seen.count += 1
        wallet.balance = Seen.count

    assert "Seen.count" in str(caught(pay))


def test_file_that_is_written_is_caught(tmp_path: Path) -> None:
    def pay(event: Paid) -> None:
        (tmp_path / "journal").write_text(event.who)

    error = caught(pay)
    assert f"it writes the file {tmp_path}/journal, which no rollback undoes" in str(error)


def test_memory_of_what_is_always_the_same_passes() -> None:
    """A cache is no state: it comes to the same whether it is there or not."""
    rates: dict[str, int] = {}

    @cache
    def rate(who: str) -> int:
        return len(who)

    def pay(event: Paid, wallet: State[Wallet]) -> None:
        rates.setdefault(event.who, rate(event.who))
        wallet.balance += rates[event.who]

    check(pay)


def test_service_that_hands_its_events_on_passes() -> None:
    """What is emitted is part of the log, for the subscriptions that take it."""
    service = Headrace("bank")

    @service.subscription("wallets").on(Paid)
    def pay(event: Paid, wallet: State[Wallet]) -> Receipt:
        wallet.balance += event.amount
        return Receipt(who=event.who, text=str(wallet.balance))

    receipts = service.subscription("receipts")

    @receipts.on(Receipt)
    def note(event: Receipt, wallet: State[Wallet]) -> None:
        wallet.seen += event.text

    assert_exactly_once(service, PAYMENTS)

    def note_twice(event: Receipt, wallet: State[Wallet]) -> None:
        shelf.items.append(1)
        wallet.balance = len(shelf.items)

    receipts.handlers.clear()
    receipts.on(Receipt)(note_twice)
    with pytest.raises(NotExactlyOnceError, match=r"2  receipt  key 'eve' .* \(emitted for 1\)"):
        assert_exactly_once(service, PAYMENTS)


def test_error_in_order_is_raised_as_it_is() -> None:
    def pay(event: Paid) -> None:
        raise KeyError(event.who)

    with pytest.raises(KeyError, match="ada"):
        check(pay)


def test_error_that_only_a_rerun_has_is_caught() -> None:
    def pay(event: Paid, wallet: State[Wallet], envelope: Envelope) -> None:
        if envelope.id in known:
            raise ValueError("seen before")
        known.add(envelope.id)

    error = caught(pay)
    assert "what becomes of event 1 differs" in str(error)
    assert "ValueError: seen before" in str(error)


def test_same_seed_finds_the_same_case() -> None:
    def pay(event: Paid, wallet: State[Wallet]) -> None:
        if shelf.items and shelf.items[-1] > event.amount:
            wallet.balance = 1
        shelf.items = [event.amount]

    first, second = caught(pay, seed=3), caught(pay, seed=3)
    assert str(first) == str(second)
    assert (first.events, first.schedule) == (second.events, second.schedule)


def test_what_it_cannot_check_is_refused() -> None:
    async def pay(event: Paid, tx: Transaction) -> None: ...

    with pytest.raises(ConfigurationError, match=r"wallets\.pay takes a Transaction, .* database=headrace_database"):
        check(pay)
    with pytest.raises(ConfigurationError, match="give it some events"):
        check(_nothing, [])
    with pytest.raises(ConfigurationError, match="no subscription 'purses'"):
        check(_nothing, subscriptions=["purses"])
    with pytest.raises(ConfigurationError, match="no handler takes receipt; leave it out"):
        check(_nothing, [Receipt(who="ada")])


def _nothing(event: Paid) -> None: ...


def test_what_has_not_changed_stays_the_same_object() -> None:
    """Also if a copy of it would be another one: a library may have noted it."""
    lock, formatter = threading.Lock(), logging.Formatter()
    held: dict[str, Any] = {"lock": lock, "count": 0}
    formats = [formatter]

    def pay(event: Paid) -> None:
        held["count"] += len(formats)

    caught(pay)
    assert held["lock"] is lock and formats[0] is formatter

    class Registry(dict[str, int]):
        """As a library has one."""

    Registry.__module__ = "library"
    registry = Registry(one=1)

    def look(event: Paid) -> None:
        registry.get(event.who)

    assert list(Outside([look]).places) == []


def test_only_what_handlers_reach_is_put_back() -> None:
    def pay(event: Paid) -> None:
        totals["ada"] = 1

    outside = Outside([pay])
    assert list(outside.places) == ["test_exactly_once.totals"]
    pay(Paid(who="ada"))
    outside.restore()
    assert totals == {}
