"""What a subscription refuses, and what it knows of its handlers."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from fastapi import Depends
from pydantic import BaseModel

from headrace import Envelope, Event, State, Subscription, event
from headrace.errors import ConfigurationError
from headrace.registry import Registry


class Credited(Event, type="credited", topic="wallets", key="customer"):
    customer: str


class Debited(Event, type="debited", topic="wallets", key="customer"):
    customer: str


class Special(Credited):
    """A subclass of an event type is none itself."""


@event(type="paid", topic="payments", key="customer")
class Paid(msgspec.Struct):
    customer: str


class Wallet(BaseModel):
    balance: int = 0


class Plain(BaseModel):
    pass


@pytest.mark.parametrize("name", ["", "Wallets", "wal lets", ".wallets", "-w", "wallets/1", "ä", "w\n", "w" * 101])
def test_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"a name has 1 to 100 of a-z, 0-9, '.', '_', '-' and starts with"):
        Subscription(name, service="shop")


@pytest.mark.parametrize("name", ["w", "wallets", "9.wallets_of-all", "w" * 100])
def test_good_name_is_taken(name: str) -> None:
    assert Subscription(name, service="shop").name == name


def test_event_types_must_be_named() -> None:
    with pytest.raises(
        ConfigurationError, match=r"name the event types that the handler takes: \.on\(WalletCredited\)"
    ):
        Subscription("wallets", service="shop").on()


def test_missing_parentheses_are_noticed_at_once() -> None:
    with pytest.raises(
        ConfigurationError, match=r"handler is not an event type; write the class in parentheses: \.on\("
    ):

        @Subscription("wallets", service="shop").on  # type: ignore[arg-type]
        def handler(event: Credited) -> None: ...


def test_class_that_is_no_event_type_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"Plain is not an event type; declare it as class Plain\(Event, type="
    ):
        Subscription("wallets", service="shop").on(Plain)


def test_instance_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"is not an event type; write the class in parentheses"):
        Subscription("wallets", service="shop").on(Credited(customer="ada"))  # type: ignore[arg-type]


def test_subclass_of_an_event_type_needs_a_type_of_its_own() -> None:
    with pytest.raises(ConfigurationError, match="Special is not an event type"):
        Subscription("wallets", service="shop").on(Special)


def test_event_parameter_must_be_of_the_declared_class() -> None:
    with pytest.raises(ConfigurationError) as refused:

        @Subscription("wallets", service="shop").on(Debited)
        def handler(event: Credited) -> None: ...

    assert str(refused.value) == (
        "subscription 'wallets', handler handler: the event parameter of handler is a Credited, but the handler is "
        "declared for Debited; make both the same."
    )


def test_every_declared_class_must_be_in_the_parameters_union() -> None:
    """The union is the type of the handler's event parameter."""
    with pytest.raises(
        ConfigurationError, match=r"the event parameter of handler is a Credited \| Debited, but .* Paid"
    ):

        @Subscription("wallets", service="shop").on(Credited, Paid)
        def handler(event: Credited | Debited) -> None: ...


def test_event_parameter_of_a_dependency_must_fit_as_well() -> None:
    def owner(event: Debited) -> str:
        return event.customer

    with pytest.raises(ConfigurationError, match=r"the event parameter of owner is a Debited, but .* for Credited"):

        @Subscription("wallets", service="shop").on(Credited)
        def handler(event: Credited, name: Annotated[str, Depends(owner)]) -> None: ...


def test_type_has_one_handler_per_subscription() -> None:
    wallets = Subscription("wallets", service="shop")

    @wallets.on(Credited)
    def first(event: Credited) -> None: ...

    with pytest.raises(ConfigurationError) as refused:

        @wallets.on(Credited)
        def second(event: Credited) -> None: ...

    assert str(refused.value) == (
        "subscription 'wallets', handler second: credited already has the handler first; "
        "call one from the other, or use another subscription."
    )


def test_states_of_one_name_are_refused() -> None:
    wallets = Subscription("wallets", service="shop")

    @wallets.on(Credited)
    def first(event: Credited, wallet: State[Wallet]) -> None: ...

    class WALLET(BaseModel):
        balance: int = 0

    with pytest.raises(
        ConfigurationError, match=r"two states are named 'wallet' \(Wallet, .*WALLET\); rename one class"
    ):

        @wallets.on(Debited)
        def second(event: Debited, wallet: State[WALLET]) -> None: ...


def test_one_handler_takes_several_types() -> None:
    wallets = Subscription("wallets", service="shop")

    @wallets.on(Credited, Debited, Paid)
    def handler(event: Credited | Debited | Paid, wallet: State[Wallet], envelope: Envelope) -> None: ...

    assert {name: held.name for name, held in wallets.handlers.items()} == dict.fromkeys(
        ("credited", "debited", "paid"), "handler"
    )
    assert wallets.topics == ("payments", "wallets")
    assert wallets.wants_envelope
    assert list(wallets.states) == ["wallet"]


def test_decorated_function_stays_a_plain_function() -> None:
    wallets = Subscription("wallets", service="shop")

    @wallets.on(Credited)
    def handler(event: Credited, wallet: State[Wallet]) -> None:
        wallet.balance += 1

    wallet = Wallet()
    handler(Credited(customer="ada"), wallet)
    assert wallet.balance == 1


def test_subscription_is_declared_once() -> None:
    registry = Registry("shop")
    registry.add_subscription("wallets", "earliest")
    with pytest.raises(ConfigurationError, match="the subscription 'wallets' is declared twice; give one another name"):
        registry.add_subscription("wallets", "latest")


def test_subscription_without_a_handler_is_refused() -> None:
    registry = Registry("shop")
    registry.add_subscription("wallets", "earliest")
    with pytest.raises(ConfigurationError, match="subscription 'wallets' has no handler"):
        registry.complete()


def test_two_classes_of_one_type_are_refused() -> None:
    class Again(Event, type="credited", topic="wallets"):
        customer: str

    registry = Registry("shop")
    registry.add_type(Credited)
    registry.add_type(Credited)
    with pytest.raises(ConfigurationError, match=r"two classes have the type 'credited': Credited and .*Again"):
        registry.add_type(Again)
