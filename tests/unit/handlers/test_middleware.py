"""Middlewares: around every kind of handler, in their order, and what they may do."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends
from pydantic import BaseModel

from headrace import CallNext, Event, Handling, Headrace, Skip, State, States, Step, Table
from headrace.errors import ConfigurationError
from headrace.testing import Handlers, assert_exactly_once


class Credited(Event, type="credited", topic="wallets", key="customer"):
    customer: str
    amount: int = 1


class Noted(Event, type="noted", topic="notes", key="customer"):
    customer: str


class Wallet(BaseModel):
    balance: int = 0


KINDS = ["sync", "async", "generator", "batch", "async batch", "effect"]


def bank(kind: str, said: list[str]) -> Headrace:
    """Return a service whose one handler, of a kind, says `handler`."""
    events = Headrace("bank")
    events.declare(Noted)
    wallets = events.subscription("wallets")

    def opened() -> Iterator[None]:
        said.append("dependency")
        yield
        said.append("dependency ends")

    def credit(event: Credited, wallet: State[Wallet], opened: Annotated[None, Depends(opened)]) -> Noted:
        said.append("handler")
        wallet.balance += event.amount
        return Noted(customer=event.customer)

    async def credit_async(event: Credited, wallet: State[Wallet], opened: Annotated[None, Depends(opened)]) -> Noted:
        return credit(event, wallet, opened)

    def credit_yielding(
        event: Credited, wallet: State[Wallet], opened: Annotated[None, Depends(opened)]
    ) -> Iterator[Noted]:
        yield credit(event, wallet, opened)

    def credit_all(
        events: list[Credited], wallets: States[Wallet], opened: Annotated[None, Depends(opened)]
    ) -> list[Noted]:
        return [credit(event, wallets.of(event), opened) for event in events]

    async def credit_all_async(
        events: list[Credited], wallets: States[Wallet], opened: Annotated[None, Depends(opened)]
    ) -> list[Noted]:
        return credit_all(events, wallets, opened)

    async def tell(event: Credited, step: Step, opened: Annotated[None, Depends(opened)]) -> Noted:
        said.append("handler")
        return Noted(customer=event.customer)

    handlers: dict[str, Any] = {
        "sync": credit,
        "async": credit_async,
        "generator": credit_yielding,
        "batch": credit_all,
        "async batch": credit_all_async,
    }
    if kind == "effect":
        wallets.effect(Credited)(tell)
    else:
        wallets.on(Credited)(handlers[kind])
    return events


def saying(events: Headrace, name: str, said: list[str]) -> None:
    """Declare a middleware that says its name before and after."""

    @events.middleware
    async def middleware(handling: Handling, call_next: CallNext) -> Any:
        said.append(name)
        returned = await call_next(handling)
        said.append(f"{name} ends")
        return returned


@pytest.mark.parametrize("kind", KINDS)
def test_middlewares_are_around_every_kind_of_handler(kind: str) -> None:
    said: list[str] = []
    events = bank(kind, said)
    saying(events, "inner", said)
    saying(events, "outer", said)
    with Handlers(events) as handlers:
        then = handlers.when(Credited(customer="ada", amount=5))
    inside = ["dependency", "handler", "dependency ends"]
    assert said == ["outer", "inner", *inside, "inner ends", "outer ends"]
    assert then.emits == [Noted(customer="ada")]


def test_handling_tells_what_is_handled() -> None:
    told: list[Any] = []
    for kind in KINDS:
        events = bank(kind, [])

        @events.middleware
        async def look(handling: Handling, call_next: CallNext) -> Any:
            told.append((handling.subscription, handling.kind, handling.is_async, handling.key, len(handling.events)))
            assert [each.type for each in handling.envelopes] == ["credited"] * len(handling.events)
            return await call_next(handling)

        with Handlers(events) as handlers:
            handlers.when([Credited(customer="ada")] * (2 if "batch" in kind else 1))
    assert told == [
        ("wallets", "handler", False, "ada", 1),
        ("wallets", "handler", True, "ada", 1),
        ("wallets", "handler", False, "ada", 1),
        ("wallets", "batch handler", False, None, 2),
        ("wallets", "batch handler", True, None, 2),
        ("wallets", "effect", True, "ada", 1),
    ]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_it_raises_and_returns_counts_as_the_handlers(kind: str) -> None:
    events = bank(kind, [])

    @events.middleware
    async def choose(handling: Handling, call_next: CallNext) -> Any:
        if handling.event.customer == "test":
            raise Skip("a test customer")
        await call_next(handling)
        if handling.event.customer == "bad":
            raise ValueError("no")
        handling.emit(Noted(customer="emitted"))
        return [Noted(customer="returned")]

    with Handlers(events) as handlers:
        assert handlers.when(Credited(customer="test")).fate == "skipped"
        assert handlers.when(Credited(customer="bad"), allow=ValueError).fate == "retry"
        assert handlers.states(Wallet) == {}, "what the handler did is undone"
        then = handlers.when(Credited(customer="ada"))
        assert then.emits == [Noted(customer="emitted"), Noted(customer="returned")]


@pytest.mark.parametrize("kind", ["sync", "async", "effect"])
def test_handler_gets_the_event_that_a_middleware_assigns(kind: str) -> None:
    events = bank(kind, [])

    @events.middleware
    async def translate(handling: Handling, call_next: CallNext) -> Any:
        event = copy.copy(handling.event)
        event.customer, event.amount = "eve", 7
        handling.event = event
        return await call_next(handling)

    with Handlers(events) as handlers:
        then = handlers.when(Credited(customer="ada"))
        assert then.emits == [Noted(customer="eve")]
        if kind != "effect":
            assert then.state(Wallet) == Wallet(balance=7), "the state is that of the event's key"


async def wait(handling: Handling, call_next: CallNext) -> Any:
    await asyncio.sleep(0)
    return await call_next(handling)


async def twice(handling: Handling, call_next: CallNext) -> Any:
    await call_next(handling)
    return await call_next(handling)


async def one_of_a_list(handling: Handling, call_next: CallNext) -> Any:
    return handling.event


@pytest.mark.parametrize(
    ("kind", "middleware", "error", "message"),
    [
        ("sync", wait, ConfigurationError, "waits for something around bank"),
        ("async", twice, RuntimeError, "call_next was called twice around"),
        ("sync", twice, RuntimeError, "call_next was called twice around"),
        ("batch", one_of_a_list, ConfigurationError, r"takes a list; a middleware finds it in \.events"),
    ],
)
def test_what_it_cannot_do_is_said_in_a_sentence(
    kind: str, middleware: Callable[..., Any], error: type[Exception], message: str
) -> None:
    events = bank(kind, [])
    events.middleware(middleware)
    with Handlers(events) as handlers, pytest.raises(error, match=message.replace("bank", "credit")):
        handlers.when(Credited(customer="ada"))


def test_it_may_wait_around_an_async_handler() -> None:
    said: list[str] = []
    events = bank("async", said)
    events.middleware(wait)
    with Handlers(events) as handlers:
        handlers.when(Credited(customer="ada"))
    assert "handler" in said


def test_a_wrong_function_is_refused_where_it_is_declared() -> None:
    events = bank("sync", [])

    def plain(handling: Handling, call_next: CallNext) -> Any: ...
    async def no_next(handling: Handling) -> Any: ...

    with pytest.raises(ConfigurationError, match="is no coroutine function; write async def plain"):
        events.middleware(plain)
    with pytest.raises(ConfigurationError, match="does not take two arguments; write async def no_next"):
        events.middleware(no_next)  # type: ignore[type-var]


def test_it_is_told_which_attempt_it_is_around() -> None:
    attempts: list[int] = []
    events = bank("sync", [])

    @events.middleware
    async def fail_twice(handling: Handling, call_next: CallNext) -> Any:
        attempts.append(handling.attempt)
        if handling.attempt < 3:
            raise ValueError("not yet")
        return await call_next(handling)

    with Handlers(events) as handlers:
        handlers.when(Credited(customer="ada", amount=5), allow=ValueError)
        handlers.move(minutes=10, allow=ValueError)
        assert attempts == [1, 2, 3]
        assert handlers.state(Wallet, "ada") == Wallet(balance=5)


def test_handler_without_a_middleware_does_not_know_of_them() -> None:
    events = Headrace("bank")

    @events.subscription("wallets").on(Credited)
    def credit(event: Credited, wallet: State[Wallet]) -> None: ...

    events.registry.complete()
    handler = events.registry.subscriptions["wallets"].handlers["credited"]
    assert not handler.is_wrapped and handler.call is handler.signature.call


def test_middleware_is_around_a_projection() -> None:
    class Row(BaseModel):
        customer: str
        amount: int

    events = Headrace("bank")
    rows = events.projection("rows", Row, key="customer")

    @rows.on(Credited)
    def put(event: Credited, table: Table[Row]) -> None:
        table.put(Row(customer=event.customer, amount=event.amount))

    @events.middleware
    async def double(handling: Handling, call_next: CallNext) -> Any:
        handling.event = handling.event.model_copy(update={"amount": handling.event.amount * 2})
        return await call_next(handling)

    with Handlers(events) as handlers:
        handlers.when(Credited(customer="ada", amount=4))
        assert handlers.rows(Row) == [Row(customer="ada", amount=8)]


def test_handlers_with_a_middleware_are_proved_exactly_once() -> None:
    events = Headrace("bank")
    events.declare(Noted)

    @events.subscription("wallets").on(Credited)
    def credit(event: Credited, wallet: State[Wallet]) -> None:
        wallet.balance += event.amount

    @events.middleware
    async def note(handling: Handling, call_next: CallNext) -> Any:
        handling.emit(Noted(customer=handling.key or ""))
        return await call_next(handling)

    assert_exactly_once(events, [Credited(customer=name, amount=2) for name in ("ada", "bob", "ada")])
