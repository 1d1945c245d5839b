"""Every refusal of a signature, with the sentence that tells what to write."""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import msgspec
import pytest
from fastapi import Depends
from pydantic import BaseModel

from headrace import Emit, Envelope, Event, State, Transaction
from headrace.errors import ConfigurationError
from headrace.handlers.signature import MENU, Signature

if typing.TYPE_CHECKING:
    from decimal import Decimal


class Credited(Event, type="credited", topic="wallets", key="customer"):
    customer: str


class Debited(Event, type="debited", topic="wallets", key="customer"):
    customer: str


class Wallet(BaseModel):
    balance: int = 0


class Needy(BaseModel):
    owner: str


class Plain:
    pass


def no_annotation(event) -> None: ...  # type: ignore[no-untyped-def]


def plain_model(wallet: Wallet) -> None: ...


def plain_number(amount: int) -> None: ...


def plain_union(amount: int | None) -> None: ...


def two_events(first: Credited, second: Debited) -> None: ...


def two_states(first: State[Wallet], second: State[Wallet]) -> None: ...


def state_of_nothing(wallet: State) -> None: ...  # type: ignore[type-arg]


def state_of_alias(wallet: State[dict[str, int]]) -> None: ...


def state_of_plain_class(wallet: State[Plain]) -> None: ...


def state_of_number(count: State[int]) -> None: ...


def state_without_default(wallet: State[Needy]) -> None: ...


def many(*events: Credited) -> None: ...


def named(event: Credited, **rest: Any) -> None: ...


def sync_transaction(event: Credited, tx: Transaction) -> None: ...


async def yielding(event: Credited) -> AsyncIterator[Credited]:
    yield event


def unknown_annotation(event: Credited, price: Decimal) -> None: ...


async def rates() -> int:
    return 1


async def session() -> AsyncIterator[int]:
    yield 1


def over_async(value: Annotated[int, Depends(rates)]) -> int:
    return value


def async_dependency(event: Credited, rate: Annotated[int, Depends(rates)]) -> None: ...


def async_generator_dependency(event: Credited, rate: Annotated[int, Depends(session)]) -> None: ...


def nested_async_dependency(event: Credited, rate: Annotated[int, Depends(over_async)]) -> None: ...


def empty_depends(event: Credited, rate: Annotated[int, Depends()]) -> None: ...


async def transaction_in_dependency(tx: Transaction) -> int:
    return 1


def sync_rates(tx: Transaction) -> int:
    return 1


def with_transaction_dependency(value: Annotated[int, Depends(transaction_in_dependency)]) -> None: ...


async def with_sync_transaction_dependency(value: Annotated[int, Depends(sync_rates)]) -> None: ...


REFUSALS: list[tuple[Callable[..., Any], str]] = [
    (no_annotation, f"no_annotation: parameter 'event' has no annotation; annotate it with {MENU}."),
    (
        plain_model,
        f"plain_model: parameter 'wallet': Wallet cannot be injected; a handler takes {MENU}. "
        "For a value kept per key write State[Wallet].",
    ),
    (plain_number, f"parameter 'amount': int cannot be injected; a handler takes {MENU}."),
    (plain_union, f"parameter 'amount': int | None cannot be injected; a handler takes {MENU}."),
    (two_events, "parameter 'second': a handler takes one event; two_events has two event parameters."),
    (two_states, "parameter 'second': State[Wallet] is asked for twice; one parameter is enough."),
    (state_of_nothing, "parameter 'wallet': State[...] takes a class, not ~T."),
    (state_of_alias, "parameter 'wallet': State[...] takes a class, not dict[str, int]."),
    (
        state_of_plain_class,
        "State[Plain]: a state is a pydantic.BaseModel or a msgspec.Struct; make Plain one.",
    ),
    (state_of_number, "State[int]: a state is a pydantic.BaseModel or a msgspec.Struct; make int one."),
    (
        state_without_default,
        "State[Needy]: Needy() must work, since a new key starts from it: give every field a default.",
    ),
    (many, "many: *args and **kwargs cannot be injected; name each parameter."),
    (named, "named: *args and **kwargs cannot be injected; name each parameter."),
    (
        sync_transaction,
        "sync_transaction: a Transaction is awaited, so the handler must be `async def sync_transaction(...)`.",
    ),
    (yielding, "yielding: an async handler cannot yield; return a list of events, or call emit."),
    (
        unknown_annotation,
        "unknown_annotation: the annotation 'Decimal' is not known where the handler is declared; "
        "import or define it there.",
    ),
    (
        async_dependency,
        "parameter 'rate': rates is async, so the handler must be `async def async_dependency(...)`.",
    ),
    (
        async_generator_dependency,
        "parameter 'rate': session is async, so the handler must be `async def async_generator_dependency(...)`.",
    ),
    (
        nested_async_dependency,
        "parameter 'rate': over_async is async, so the handler must be `async def nested_async_dependency(...)`.",
    ),
    (empty_depends, "parameter 'rate': Depends() needs the function to call: Depends(get_rates)."),
    (
        with_transaction_dependency,
        "parameter 'value': transaction_in_dependency is async, so the handler must be "
        "`async def with_transaction_dependency(...)`.",
    ),
    (
        with_sync_transaction_dependency,
        "sync_rates: a Transaction is awaited, so the handler must be `async def sync_rates(...)`.",
    ),
]


@pytest.mark.parametrize(("function", "sentence"), REFUSALS, ids=[function.__name__ for function, _ in REFUSALS])
def test_wrong_signature_is_refused_with_the_sentence_that_helps(function: Callable[..., Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Signature(function)
    assert str(refused.value).endswith(sentence)
    assert "\n" not in str(refused.value)


def test_lambda_is_asked_for_annotations() -> None:
    with pytest.raises(ConfigurationError, match="parameter 'event' has no annotation"):
        Signature(lambda event: None)


def test_signature_tells_what_the_function_asks_for() -> None:
    class Count(msgspec.Struct):
        seen: int = 0

    async def handler(
        event: Credited, wallet: State[Wallet], count: State[Count], envelope: Envelope, tx: Transaction, emit: Emit
    ) -> None: ...

    signature = Signature(handler, locals())
    assert signature.name == "handler"
    assert signature.is_async
    assert signature.events == (Credited,)
    assert [state.name for state in signature.states] == ["wallet", "count"]
    assert signature.wants_envelope
    assert signature.wants_transaction
    assert signature.dependencies == []


def test_function_without_parameters_is_a_handler() -> None:
    def tick() -> None: ...

    signature = Signature(tick)
    assert signature.events == ()
    assert not signature.is_async


def test_envelope_of_a_dependency_is_known_to_the_handler() -> None:
    def tenant(envelope: Envelope) -> str:
        return envelope.source

    def nested(name: Annotated[str, Depends(tenant)]) -> str:
        return name

    def handler(event: Credited, name: Annotated[str, Depends(nested)]) -> None: ...

    assert Signature(handler, locals()).wants_envelope


def test_a_dependency_shares_states_and_transaction() -> None:
    class Count(BaseModel):
        n: int = 0

    async def balance(wallet: State[Wallet], tx: Transaction) -> int:
        return wallet.balance

    async def handler(
        event: Credited, count: State[Count], before: Annotated[int, Depends(balance)], wallet: State[Wallet]
    ) -> None: ...

    signature = Signature(handler, locals())
    assert [state.name for state in signature.states] == ["count", "wallet"]
    assert signature.wants_transaction


def test_plain_parameter_with_a_default_keeps_it() -> None:
    def handler(limit: int = 3, event: Credited | None = None, *, name: str | None = "x") -> None: ...

    def limited(event: Credited, limit: int = 3, wallet: State[Wallet] = Wallet(), note: str = "-") -> Any:  # noqa: B008
        return event, limit, wallet, note

    wallet, credited = Wallet(balance=7), Credited(customer="ada")
    call = Signature(limited, locals()).call
    assert call(credited, None, [wallet], None, None, ()) == (credited, 3, wallet, "-")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"parameter 'event': .*Credited \| None cannot"):
        Signature(handler, locals())


def test_model_with_a_default_is_not_taken_for_a_plain_parameter() -> None:
    def handler(event: Credited, wallet: Wallet = Wallet()) -> None: ...  # noqa: B008

    with pytest.raises(ConfigurationError, match=r"For a value kept per key write State\[Wallet\]"):
        Signature(handler, locals())
