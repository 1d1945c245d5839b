"""Handlers of lists: what reaches them, in which lists, and what becomes of an event that makes them raise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends
from pydantic import BaseModel

from headrace import DeadLetter, Emit, Envelope, Event, Headrace, Skip, State, States, Step, Subscription
from headrace.errors import ConfigurationError
from headrace.testing import Handlers, NotExactlyOnceError, assert_exactly_once


class Credited(Event, type="credited", topic="wallets", key="customer"):
    customer: str
    amount: int = 1


class Debited(Event, type="debited", topic="wallets", key="customer"):
    customer: str


class Summed(Event, type="summed", topic="sums", key="customer"):
    customer: str
    balance: int


class Wallet(BaseModel):
    balance: int = 0


class Bank:
    """A service with one batch handler, and the lists that it was given."""

    def __init__(self, *, is_async: bool = False, **options: Any) -> None:
        self.events = Headrace("bank")
        self.events.declare(Summed)
        self.wallets = self.events.subscription("wallets")
        self.lists: list[list[tuple[str, int]]] = []
        self.act: Callable[[Credited], None] = lambda event: None

        def credit(events: list[Credited], wallets: States[Wallet], emit: Emit) -> None:
            self.lists.append([(each.customer, each.amount) for each in events])
            for event in events:
                wallet = wallets.of(event)
                wallet.balance += event.amount
                emit(Summed(customer=event.customer, balance=wallet.balance), cause=event)
                self.act(event)

        async def credit_async(events: list[Credited], wallets: States[Wallet], emit: Emit) -> None:
            credit(events, wallets, emit)

        self.wallets.on(Credited, **options)(credit_async if is_async else credit)

        @self.wallets.on(Debited)
        def debit(event: Debited, wallet: State[Wallet]) -> None:
            wallet.balance -= 1


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def bank(request: pytest.FixtureRequest) -> Bank:
    return Bank(is_async=request.param)


@pytest.fixture
def handlers(bank: Bank) -> Iterator[Handlers]:
    with Handlers(bank.events) as made:
        yield made


def credited(*amounts: tuple[str, int]) -> list[Event]:
    return [Credited(customer=customer, amount=amount) for customer, amount in amounts]


def test_batch_is_one_list_in_the_order_of_the_log(bank: Bank, handlers: Handlers) -> None:
    then = handlers.when(credited(("ada", 5), ("bob", 7), ("ada", 2)))
    assert bank.lists == [[("ada", 5), ("bob", 7), ("ada", 2)]]
    assert handlers.states(Wallet) == {"ada": Wallet(balance=7), "bob": Wallet(balance=7)}
    assert [each.fate for each in then.steps] == ["applied"] * 3


def test_event_of_another_handler_ends_the_list(bank: Bank, handlers: Handlers) -> None:
    handlers.when([*credited(("ada", 5), ("bob", 7)), Debited(customer="ada"), *credited(("ada", 2))])
    assert bank.lists == [[("ada", 5), ("bob", 7)], [("ada", 2)]]
    assert handlers.state(Wallet, "ada") == Wallet(balance=6)


def test_event_that_raises_fails_alone_with_those_behind_it(bank: Bank, handlers: Handlers) -> None:
    def refuse(event: Credited) -> None:
        if event.amount == 13:
            raise KeyError(event.customer)

    bank.act = refuse
    amounts = [(f"customer {number % 10}", 13 if number == 42 else 1) for number in range(64)]
    then = handlers.when(credited(*amounts), allow=KeyError)
    fates = [each.fate for each in then.steps]
    assert fates[42] == "retry"
    assert [number for number, fate in enumerate(fates) if fate == "waits"] == [52, 62]
    assert fates.count("applied") == 61
    assert handlers.state(Wallet, "customer 2") == Wallet(balance=4)
    assert handlers.state(Wallet, "customer 3") == Wallet(balance=7)
    assert sum(("customer 2", 13) in each for each in bank.lists) <= 8, "the list is halved until it is found"


def test_what_a_failed_list_emitted_is_taken_back(bank: Bank, handlers: Handlers) -> None:
    def refuse(event: Credited) -> None:
        if event.amount == 13:
            raise KeyError(event.customer)

    bank.act = refuse
    then = handlers.when(credited(("ada", 1), ("bob", 13), ("ada", 1), ("cyd", 1)), allow=KeyError)
    assert sorted((each.customer, each.balance) for each in then.emits) == [("ada", 1), ("ada", 2), ("cyd", 1)]


def test_parked_events_come_again_one_at_a_time(bank: Bank, handlers: Handlers) -> None:
    def refuse(event: Credited) -> None:
        raise KeyError(event.customer)

    bank.act = refuse
    handlers.when(credited(("ada", 1), ("ada", 2)), allow=KeyError)
    bank.act, bank.lists = (lambda event: None), []
    handlers.move(minutes=5)
    assert bank.lists == [[("ada", 1)], [("ada", 2)]]
    assert handlers.state(Wallet, "ada") == Wallet(balance=3)


@pytest.mark.parametrize(("verdict", "fate"), [(Skip("no"), "skipped"), (DeadLetter("no"), "dead_letter")])
def test_verdict_is_about_the_event_that_it_is_raised_for(
    bank: Bank, handlers: Handlers, verdict: Exception, fate: str
) -> None:
    def refuse(event: Credited) -> None:
        if event.customer == "bob":
            raise verdict

    bank.act = refuse
    then = handlers.when(credited(("ada", 1), ("bob", 1), ("cyd", 1)))
    assert [each.fate for each in then.steps] == ["applied", fate, "applied"]


def test_emitted_events_have_ids_that_no_list_changes(bank: Bank, handlers: Handlers) -> None:
    """The same events, in one list and one at a time, come to the same ids and causes."""
    events = credited(("ada", 5), ("bob", 7))
    ids = [f"{number}" for number in range(2)]
    with Handlers(bank.events) as other:
        one_by_one = [other.when(event, id=id) for event, id in zip(events, ids, strict=True)]
    refused = handlers.when([Credited(customer="ada", amount=5)], id="0")
    assert refused.sent[0].envelope.id == one_by_one[0].sent[0].envelope.id
    together = handlers.when(events)
    assert [each.envelope.causationid for each in together.sent] == [each.envelope.id for each in together.steps]
    assert len({each.envelope.id for each in together.sent}) == 2


def test_returned_events_follow_from_the_last_event() -> None:
    events = Headrace("bank")
    events.declare(Summed)
    wallets = events.subscription("wallets")

    @wallets.on(Credited)
    def credit(events: list[Credited], envelopes: list[Envelope]) -> Summed:
        assert len(events) == len(envelopes)
        return Summed(customer="all", balance=sum(each.amount for each in events))

    with Handlers(events) as handlers:
        then = handlers.when(credited(("ada", 5), ("bob", 7)))
    assert then.emits == [Summed(customer="all", balance=12)]
    assert then.sent[0].envelope.causationid == then.steps[-1].envelope.id


def test_emit_refuses_a_cause_that_is_not_of_the_list(bank: Bank) -> None:
    other = Credited(customer="eve")

    def act(events: list[Credited], emit: Emit) -> None:
        emit(Summed(customer="ada", balance=1), cause=other)

    bank.wallets.handlers.pop("credited")
    bank.wallets.on(Credited)(act)
    with (
        Handlers(bank.events) as handlers,
        pytest.raises(ConfigurationError, match="names an event of the list"),
    ):
        handlers.when(credited(("ada", 1)))


def test_most_events_limits_the_lists() -> None:
    bank = Bank(most_events=2)
    with Handlers(bank.events) as handlers:
        handlers.when(credited(("ada", 1), ("ada", 2), ("ada", 3)))
    assert [len(each) for each in bank.lists] == [2, 1]


def test_dependency_is_called_once_for_a_list() -> None:
    events = Headrace("bank")
    wallets = events.subscription("wallets")
    calls: list[str] = []

    async def opened(events: list[Credited], wallets: States[Wallet]) -> AsyncIterator[int]:
        calls.append("opened")
        yield len(events) + len(wallets)
        calls.append("closed")

    @wallets.on(Credited)
    async def credit(events: list[Credited], total: Annotated[int, Depends(opened)]) -> None:
        calls.append(str(total))

    with Handlers(events) as handlers:
        handlers.when(credited(("ada", 1), ("ada", 2), ("bob", 3)))
    assert calls == ["opened", "5", "closed"]


def test_batch_handler_is_proved_exactly_once() -> None:
    events = Headrace("bank")
    events.declare(Summed)
    wallets = events.subscription("wallets")

    @wallets.on(Credited)
    def credit(events: list[Credited], wallets: States[Wallet], emit: Emit) -> None:
        for event in events:
            wallet = wallets.of(event)
            wallet.balance += event.amount
            emit(Summed(customer=event.customer, balance=wallet.balance), cause=event)

    given = credited(*((customer, amount) for amount in range(1, 6) for customer in ("ada", "bob", "cyd")))
    assert_exactly_once(events, given)


def test_handler_that_depends_on_how_lists_are_cut_is_found() -> None:
    events = Headrace("bank")
    wallets = events.subscription("wallets")

    @wallets.on(Credited)
    def credit(events: list[Credited], wallets: States[Wallet]) -> None:
        for event in events:
            wallets.of(event).balance += event.amount * len(events)

    with pytest.raises(NotExactlyOnceError):
        assert_exactly_once(events, credited(("ada", 1), ("bob", 2), ("ada", 3)))


def envelope_of_one(envelope: Envelope) -> str:
    return envelope.id


def test_signature_says_what_is_wrong() -> None:
    wallets = Subscription("wallets", service="bank")

    def one_state(events: list[Credited], wallet: State[Wallet]) -> None: ...
    def one_envelope(events: list[Credited], envelope: Envelope) -> None: ...
    def through(events: list[Credited], id: Annotated[str, Depends(envelope_of_one)]) -> None: ...
    def many_states(event: Credited, wallets: States[Wallet]) -> None: ...

    for function in (one_state, one_envelope, through):
        with pytest.raises(ConfigurationError, match=r"is about one event, and .* takes a list of them"):
            wallets.on(Credited)(function)
    with pytest.raises(
        ConfigurationError, match="'wallets' is about a list of events; write the handler with the list"
    ):
        wallets.on(Credited)(many_states)
    with pytest.raises(ConfigurationError, match="the event parameter of other is a Debited"):

        @wallets.on(Credited)
        def other(events: list[Debited]) -> None: ...

    with pytest.raises(ConfigurationError, match="most_events is for handlers of a list"):

        @wallets.on(Credited, most_events=3)
        def plain(event: Credited) -> None: ...

    with pytest.raises(ConfigurationError, match="an effect is called for one event"):

        @wallets.effect(Credited)
        async def mail(events: list[Credited], step: Step) -> None: ...
