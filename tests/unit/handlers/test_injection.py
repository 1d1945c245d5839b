"""What reaches a handler, through the same runner that batches use."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends
from pydantic import BaseModel

from headrace import Emit, Envelope, Event, State, Subscription, Transaction
from headrace.cloudevents import decode_record
from headrace.emits.emitter import Emitter
from headrace.engine.run import Run
from headrace.engine.threads import HandlerThreads
from headrace.errors import ConfigurationError
from headrace.item import Item, Outcome
from headrace.log.ports import StoredRecord
from headrace.registry import Registry
from headrace.state.cache import StateCache
from headrace.telemetry.tracing import Tracing


class Credited(Event, type="credited", topic="wallets", key="customer"):
    customer: str
    amount: int = 1


class Debited(Event, type="debited", topic="wallets", key="customer"):
    customer: str


class Wallet(BaseModel):
    balance: int = 0


ENVELOPE = Envelope(id="1", source="/test", type="credited")
TYPES = {"credited": Credited.__headrace_event_type__, "debited": Debited.__headrace_event_type__}


class Bench:
    """A subscription, and one event that is run through it."""

    def __init__(self) -> None:
        self.subscription = Subscription("wallets", service="shop")
        self.wallet: Wallet | None = None
        self.emitted: list[bytes | None] = []

    async def run(self, event: Event, *, careful: bool = True) -> Item:
        """Run the event's handler once and return the item; what came of it is in `wallet` and `emitted`."""
        item = Item(StoredRecord("wallets", 0, 0, 0, b"ada", b"", ()))
        item.event, item.known_envelope, item.key = event, ENVELOPE, "ada"
        item.handler = self.subscription.handlers[event.__headrace_event_type__.type]
        caches = {name: StateCache(state, 10) for name, state in self.subscription.states.items()}
        for cache in caches.values():
            cache.put("ada", b"", 0)
        emitter = Emitter("shop", "wallets", TYPES, 1_000_000)
        run = Run(
            [item],
            caches,
            emitter,
            careful=careful,
            timeout_seconds=5,
            observe=lambda handler, seconds: None,
            failed=lambda item, error: None,
            tracing=Tracing(),
        )
        threads = HandlerThreads("wallets", 1)
        try:
            await run.execute(threads, None)
        finally:
            threads.stop()
        self.emitted = [decode_record(record)[1] for _, record in emitter.emitted]
        if "wallet" in caches:
            self.wallet = caches["wallet"].entries["ada"].value
        return item


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_sync_handler_is_given_what_its_signature_asks_for(bench: Bench) -> None:
    given: list[object] = []

    @bench.subscription.on(Credited)
    def handler(envelope: Envelope, wallet: State[Wallet], event: Credited, emit: Emit) -> None:
        given.extend((envelope, event))
        wallet.balance += event.amount
        emit(Debited(customer="bob"))

    event = Credited(customer="ada", amount=3)
    item = await bench.run(event)
    assert item.outcome is Outcome.APPLIED
    assert given == [ENVELOPE, event]
    assert bench.wallet == Wallet(balance=3)
    assert bench.emitted == [b'{"customer":"bob"}']


async def test_async_handler_is_given_what_its_signature_asks_for(bench: Bench) -> None:
    @bench.subscription.on(Credited)
    async def handler(event: Credited, wallet: State[Wallet], emit: Emit) -> list[Debited]:
        wallet.balance += event.amount
        emit(Debited(customer="first"))
        return [Debited(customer="second"), Debited(customer="third")]

    assert (await bench.run(Credited(customer="ada"))).outcome is Outcome.APPLIED
    assert bench.wallet == Wallet(balance=1)
    assert bench.emitted == [b'{"customer":"first"}', b'{"customer":"second"}', b'{"customer":"third"}']


async def test_keyword_only_parameters_are_given_by_name(bench: Bench) -> None:
    @bench.subscription.on(Credited)
    def handler(event: Credited, /, *, emit: Emit, wallet: State[Wallet]) -> None:
        wallet.balance += event.amount
        emit(event)

    assert (await bench.run(Credited(customer="ada"))).outcome is Outcome.APPLIED
    assert bench.wallet == Wallet(balance=1)
    assert len(bench.emitted) == 1


async def test_transaction_is_given_to_an_async_handler(bench: Bench) -> None:
    given: list[object] = []

    @bench.subscription.on(Credited)
    async def handler(event: Credited, tx: Transaction) -> None:
        given.append(tx)

    signature = bench.subscription.handlers["credited"].signature
    transaction = Transaction(None)  # type: ignore[arg-type]
    await signature.call(
        Credited(customer="ada"), ENVELOPE, (), Emitter("shop", "wallets", TYPES, 1_000_000), transaction, ()
    )
    assert signature.wants_transaction
    assert given == [transaction]


@pytest.mark.parametrize("event", [Credited(customer="ada"), Debited(customer="ada")], ids=["credited", "debited"])
async def test_event_parameter_may_be_a_union(bench: Bench, event: Event) -> None:
    given: list[object] = []

    @bench.subscription.on(Credited, Debited)
    def handler(event: Credited | Debited) -> None:
        given.append(event)

    assert (await bench.run(event)).outcome is Outcome.APPLIED
    assert given == [event]


async def test_generator_emits_what_it_yields(bench: Bench) -> None:
    @bench.subscription.on(Credited)
    def handler(event: Credited, wallet: State[Wallet]) -> Iterator[Debited]:
        yield Debited(customer="first")
        wallet.balance += 1
        yield Debited(customer="second")

    assert (await bench.run(Credited(customer="ada"))).outcome is Outcome.APPLIED
    assert bench.wallet == Wallet(balance=1)
    assert len(bench.emitted) == 2


async def test_dependencies_nest_and_see_the_event_and_its_envelope(bench: Bench) -> None:
    given: list[object] = []

    def tenant(envelope: Envelope) -> str:
        return envelope.source

    def greeting(event: Credited, name: Annotated[str, Depends(tenant)]) -> str:
        return f"{event.customer}@{name}"

    @bench.subscription.on(Credited)
    def handler(event: Credited, text: Annotated[str, Depends(greeting)], other: str = Depends(tenant)) -> None:
        given.extend((text, other))

    assert (await bench.run(Credited(customer="ada"))).outcome is Outcome.APPLIED
    assert given == ["ada@/test", "/test"]


async def test_dependency_may_be_a_class_a_partial_or_an_object(bench: Bench) -> None:
    """The object has to be callable."""

    class Rates:
        def __init__(self, envelope: Envelope) -> None:
            self.source = envelope.source

    def scaled(factor: int, event: Credited) -> int:
        return factor * event.amount

    class Adder:
        def __call__(self, event: Credited) -> int:
            return event.amount + 1

    class AsyncAdder:
        async def __call__(self, event: Credited) -> int:
            return event.amount + 2

    given: list[object] = []
    double, adder, later = functools.partial(scaled, 2), Adder(), AsyncAdder()

    @bench.subscription.on(Credited)
    async def handler(
        rates: Annotated[Rates, Depends(Rates)],
        doubled: Annotated[int, Depends(double)],
        added: Annotated[int, Depends(adder)],
        awaited: Annotated[int, Depends(later)],
    ) -> None:
        given.extend((rates.source, doubled, added, awaited))

    assert (await bench.run(Credited(customer="ada", amount=5))).outcome is Outcome.APPLIED
    assert given == ["/test", 10, 6, 7]


async def test_generator_dependencies_are_cleaned_up(bench: Bench) -> None:
    """When the handler is done."""
    steps: list[str] = []

    def outer() -> Iterator[str]:
        steps.append("open outer")
        yield "outer"
        steps.append("close outer")

    def inner(name: Annotated[str, Depends(outer)]) -> Iterator[str]:
        steps.append(f"open inner in {name}")
        yield "inner"
        steps.append("close inner")

    @bench.subscription.on(Credited)
    def handler(value: Annotated[str, Depends(inner)]) -> None:
        steps.append(f"handle {value}")

    assert (await bench.run(Credited(customer="ada"))).outcome is Outcome.APPLIED
    assert steps == ["open outer", "open inner in outer", "handle inner", "close inner", "close outer"]


async def test_async_handler_takes_every_kind_of_dependency(bench: Bench) -> None:
    steps: list[str] = []

    async def rate() -> int:
        return 2

    def doubled(value: Annotated[int, Depends(rate)]) -> int:
        return 2 * value

    async def session(value: Annotated[int, Depends(doubled)]) -> AsyncIterator[str]:
        steps.append("open")
        yield f"session {value}"
        steps.append("close")

    def plain() -> Iterator[str]:
        yield "plain"
        steps.append("close plain")

    @bench.subscription.on(Credited)
    async def handler(first: Annotated[str, Depends(session)], second: Annotated[str, Depends(plain)]) -> None:
        steps.append(f"{first}, {second}")

    assert (await bench.run(Credited(customer="ada"))).outcome is Outcome.APPLIED
    assert steps == ["open", "session 4, plain", "close plain", "close"]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_dependency_is_told_of_the_handlers_failure(bench: Bench, is_async: bool) -> None:
    """Nothing of the event is kept."""
    seen: list[str] = []

    def session() -> Iterator[str]:
        try:
            yield "session"
        except ValueError as error:
            seen.append(str(error))
            raise

    def handle(event: Credited, wallet: State[Wallet], emit: Emit, session: Annotated[str, Depends(session)]) -> None:
        wallet.balance = 99
        emit(Debited(customer="bob"))
        raise ValueError("no more ink")

    async def handle_later(
        event: Credited, wallet: State[Wallet], emit: Emit, session: Annotated[str, Depends(session)]
    ) -> None:
        handle(event, wallet, emit, session)

    bench.subscription.on(Credited)(handle_later if is_async else handle)
    item = await bench.run(Credited(customer="ada"))
    assert item.outcome is Outcome.HANDLER_ERROR
    assert str(item.error).endswith("raised ValueError: no more ink")
    assert seen == ["no more ink"]
    assert bench.wallet == Wallet()
    assert bench.emitted == []


async def test_undeclared_type_cannot_be_emitted(bench: Bench) -> None:
    class Stranger(Event, type="stranger", topic="strangers"):
        name: str

    @bench.subscription.on(Credited)
    def handler(event: Credited) -> Stranger:
        return Stranger(name="who")

    item = await bench.run(Credited(customer="ada"))
    assert item.outcome is Outcome.HANDLER_ERROR
    assert "Stranger cannot be emitted, since the service does not declare it; write events.declare(Stranger)." in str(
        item.error
    )


@pytest.mark.parametrize(
    "sql", ["commit", " ROLLBACK", "select 1; commit", "savepoint a", "begin", "start transaction"]
)
async def test_transaction_control_in_a_handlers_sql_is_refused(sql: str) -> None:
    class Unreachable:
        async def execute(self, query: str, *, timeout: float | None) -> str:
            raise AssertionError(f"{query} reached Postgres")

    with pytest.raises(
        ConfigurationError, match="a handler's Transaction commits with its batch; remove BEGIN, COMMIT"
    ):
        await Transaction(Unreachable()).execute(sql)  # type: ignore[arg-type]


async def test_a_dependency_of_two_is_called_once_per_event(bench: Bench) -> None:
    """As FastAPI does; `use_cache=False` asks for another value."""
    calls: list[str] = []

    def rates(event: Credited) -> list[str]:
        calls.append(event.customer)
        return calls

    def converter(rate: Annotated[list[str], Depends(rates)]) -> list[str]:
        return rate

    def fresh(rate: Annotated[list[str], Depends(rates, use_cache=False)]) -> list[str]:
        return rate

    @bench.subscription.on(Credited)
    def handler(
        event: Credited,
        one: Annotated[list[str], Depends(rates)],
        two: Annotated[list[str], Depends(converter)],
        three: Annotated[list[str], Depends(fresh)],
    ) -> None:
        assert one is two is three

    assert (await bench.run(Credited(customer="ada"))).outcome is Outcome.APPLIED
    assert calls == ["ada", "ada"]
    assert (await bench.run(Credited(customer="bob"))).outcome is Outcome.APPLIED
    assert calls == ["ada", "ada", "bob", "bob"]


async def test_a_dependency_changes_the_state_of_the_key(bench: Bench) -> None:
    def purse(wallet: State[Wallet], limit: int = 3) -> Wallet:
        wallet.balance += limit
        return wallet

    @bench.subscription.on(Credited)
    def handler(event: Credited, kept: Annotated[Wallet, Depends(purse)], wallet: State[Wallet]) -> None:
        assert kept is wallet
        wallet.balance += event.amount

    assert (await bench.run(Credited(customer="ada", amount=1))).outcome is Outcome.APPLIED
    assert bench.wallet == Wallet(balance=4)


def clock() -> int:
    return 1


def calendar(now: Annotated[int, Depends(clock)]) -> int:
    return now * 10


async def test_dependency_overrides_are_followed(bench: Bench) -> None:
    """Those of a dependency's dependency too, and at once when they change."""
    seen: list[tuple[int, int]] = []

    @bench.subscription.on(Credited)
    def handler(event: Credited, day: Annotated[int, Depends(calendar)], now: Annotated[int, Depends(clock)]) -> None:
        seen.append((day, now))

    overrides: dict[Any, Callable[..., Any]] = {}
    bench.subscription.handlers["credited"].overrides = overrides
    await bench.run(Credited(customer="ada"))
    overrides[clock] = lambda: 7
    await bench.run(Credited(customer="ada"))
    overrides[calendar] = lambda: 0
    await bench.run(Credited(customer="ada"))
    overrides.clear()
    await bench.run(Credited(customer="ada"))
    assert seen == [(10, 1), (70, 7), (0, 7), (10, 1)]


def test_an_override_that_asks_for_more_is_refused() -> None:
    registry = Registry("shop")
    wallets = registry.add_subscription("wallets", "earliest")

    @wallets.on(Credited)
    def handler(event: Credited, day: Annotated[int, Depends(calendar)]) -> None: ...

    def greedy(wallet: State[Wallet]) -> int:
        return wallet.balance

    with pytest.raises(ConfigurationError, match=r"app.dependency_overrides asks for a State or a Transaction"):
        registry.follow({calendar: greedy})
