"""A route's own SQL and the events that it emits commit together, or neither happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest
import pytest_asyncio
from fastapi import HTTPException

from headrace import Headrace, Outbox
from headrace.errors import ConfigurationError, RecordTooLargeError, SchemaError, StateError, StateUnavailableError
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from headrace.settings import KafkaSettings
from tests.support.orders import Placed, books, create_orders, order_service
from tests.support.platform import fetch, running, sample, settings_for, value
from tests.support.postgres_proxy import PostgresProxy
from tests.support.routes import application, caller
from tests.support.waiting import until

WRITE = "insert into orders (customer, number) values ($1, $2)"


@pytest_asyncio.fixture
async def events(database_url: str) -> AsyncIterator[Headrace]:
    await create_orders(database_url)
    platform = order_service(settings_for(database_url))
    async with running(platform, MemoryLog()):
        yield platform


def runtime_of(platform: Headrace) -> Runtime:
    assert platform.runtime is not None
    return platform.runtime


async def arrived(platform: Headrace, expected: dict[str, list[int]]) -> None:
    """Wait until these events have arrived, in this order, and the outbox is empty."""
    runtime = runtime_of(platform)

    async def is_so() -> bool:
        return await books(runtime) == expected and not await value(runtime, "select count(*) from headrace.outbox")

    await until(is_so, f"{expected} has arrived, and nothing is left")


async def orders(platform: Headrace) -> list[tuple[str, int]]:
    rows = await fetch(runtime_of(platform), "select customer, number from orders order by id")
    return [tuple(row) for row in rows]


async def test_rows_and_events_commit_together(events: Headrace) -> None:
    for number in range(3):
        async with events.transaction() as tx:
            await tx.connection.execute(WRITE, "ada", number)
            assert tx.emit(Placed(customer="ada", number=number))
            tx.emit(Placed(customer="bob", number=number + 10))
    await arrived(events, {"ada": [0, 1, 2], "bob": [10, 11, 12]})
    assert await orders(events) == [("ada", 0), ("ada", 1), ("ada", 2)]
    assert sample(runtime_of(events), "outbox_published_total", topic="orders") == 6


async def test_an_exception_takes_back_both(events: Headrace) -> None:
    async def fail(customer: str | None) -> None:
        async with events.transaction() as tx:
            tx.emit(Placed(customer="ada", number=1))
            await tx.connection.execute(WRITE, customer, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail("ada")
    with pytest.raises(asyncpg.NotNullViolationError):
        await fail(None)
    async with events.transaction() as tx:
        tx.emit(Placed(customer="ada", number=3))
    await arrived(events, {"ada": [3]})
    assert await orders(events) == []


async def test_the_same_id_takes_effect_once(events: Headrace) -> None:
    for _ in range(2):
        async with events.transaction() as tx:
            assert tx.emit(Placed(customer="ada", number=1), id="order-1") == "order-1"
    await events.publish(Placed(customer="ada", number=1), id="order-1")
    async with events.transaction() as tx:
        tx.emit(Placed(customer="ada", number=2))
    await arrived(events, {"ada": [1, 2]})


async def test_a_given_key_replaces_the_declared_one(events: Headrace) -> None:
    async with events.transaction() as tx:
        tx.emit(Placed(customer="ada", number=1), key="bob")
    await arrived(events, {"bob": [1]})


async def test_events_that_no_log_could_take_fail_at_once(database_url: str) -> None:
    settings = settings_for(database_url)
    settings = settings.model_copy(update={"kafka": KafkaSettings(max_record_bytes=2_000)})
    platform = order_service(settings)
    async with running(platform, MemoryLog()):
        async with platform.transaction() as tx:
            with pytest.raises(RecordTooLargeError, match="the log takes 2,000; publish less"):
                tx.emit(Placed(customer="x" * 500, number=1), id="y" * 1_000)
            with pytest.raises(SchemaError, match="the key has 513 characters"):
                tx.emit(Placed(customer="x" * 513, number=1))
            with pytest.raises(ConfigurationError, match="int cannot be published"):
                tx.emit(7)  # type: ignore[arg-type]
        assert await value(runtime_of(platform), "select last_value from headrace.outbox_number") == 1


async def test_a_route_commits_before_it_answers(events: Headrace) -> None:
    app = application(events)

    @app.post("/orders/{customer}/{number}", status_code=201)
    async def place(customer: str, number: int, tx: Outbox) -> dict[str, str]:
        await tx.connection.execute(WRITE, customer, number)
        event = tx.emit(Placed(customer=customer, number=number))
        if number == 13:
            raise HTTPException(409, "unlucky")
        return {"event": event}

    async with caller(app) as client:
        answer = await client.post("/orders/ada/1")
        assert answer.status_code == 201
        assert await orders(events) == [("ada", 1)]
        assert (await client.post("/orders/ada/13")).status_code == 409
        assert (await client.post(f"/orders/{'x' * 513}/2")).status_code == 422
    await arrived(events, {"ada": [1]})
    assert await orders(events) == [("ada", 1)]


async def test_a_commit_that_fails_is_no_success_for_the_caller(events: Headrace) -> None:
    """The session is ended by the server between the route's last statement and the commit."""
    app = application(events)

    @app.post("/orders/{number}", status_code=201)
    async def place(number: int, tx: Outbox) -> None:
        await tx.connection.execute(WRITE, "ada", number)
        tx.emit(Placed(customer="ada", number=number))
        await runtime_of(events).pool.execute(  # type: ignore[union-attr]
            "select pg_terminate_backend($1, 5000)", tx.connection.get_server_pid()
        )

    async with caller(app) as client:
        answer = await client.post("/orders/1")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert await orders(events) == []
    async with events.transaction() as tx:
        tx.emit(Placed(customer="ada", number=2))
    await arrived(events, {"ada": [2]})


async def test_a_session_that_ends_behind_the_commit_harms_no_route(database_url: str) -> None:
    """What is committed is answered as such; the pool makes another connection."""
    await create_orders(database_url)
    async with PostgresProxy(database_url) as proxy:
        platform = order_service(settings_for(proxy.url))
        app = application(platform)

        @app.post("/orders/{number}", status_code=201)
        async def place(number: int, tx: Outbox) -> None:
            await tx.connection.execute(WRITE, "ada", number)
            proxy.cut_behind_commit()

        async with running(platform, MemoryLog()), caller(app) as client:
            assert (await client.post("/orders/1")).status_code == 201
            assert proxy.cuts == 1
            assert await orders(platform) == [("ada", 1)]


@pytest.mark.parametrize("when", ["before a statement", "amid a statement"])
async def test_a_session_that_ends_under_a_route_is_answered_503(events: Headrace, when: str) -> None:
    app = application(events)

    @app.post("/orders/{number}", status_code=201)
    async def place(number: int, tx: Outbox) -> None:
        if when == "amid a statement":
            await tx.connection.execute("select pg_terminate_backend(pg_backend_pid(), 5000)")
        await runtime_of(events).pool.execute(  # type: ignore[union-attr]
            "select pg_terminate_backend($1, 5000)", tx.connection.get_server_pid()
        )
        await tx.connection.execute(WRITE, "ada", number)

    @app.post("/elsewhere", status_code=201)
    async def ask_elsewhere(tx: Outbox) -> None:
        raise ConnectionResetError("the bank has hung up")

    async with caller(app) as client:
        answer = await client.post("/orders/1")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert (await client.post("/elsewhere")).status_code == 500
    assert await orders(events) == []


async def test_a_connection_of_ones_own_works_in_a_script(database_url: str) -> None:
    """A script writes; the service that starts afterwards publishes."""
    platform = order_service(settings_for(database_url))
    with pytest.raises(StateUnavailableError, match="not connected"):
        async with platform.transaction():
            pass
    connection = await asyncpg.connect(database_url)
    try:
        async with platform.transaction(connection) as tx:
            tx.emit(Placed(customer="ada", number=1))
    finally:
        await connection.close()
    async with running(platform, MemoryLog()):
        await arrived(platform, {"ada": [1]})


async def test_event_of_a_route_leaves_later_and_can_be_taken_back(events: Headrace) -> None:
    async with events.transaction() as tx:
        tx.emit(Placed(customer="ada", number=1), after=0.2)
        tx.emit(Placed(customer="ada", number=2), after=3_600, name="reminder")
        tx.emit(Placed(customer="bob", number=3), after=3_600)
        tx.emit(Placed(customer="bob", number=4), after=0.1)
    await arrived(events, {"ada": [1], "bob": [4]})
    async with events.transaction() as tx:
        tx.emit(Placed(customer="ada", number=5), after=0, name="reminder")  # the same one, moved
        tx.cancel(Placed, "bob")
    await arrived(events, {"ada": [1, 5], "bob": [4]})
    assert await value(runtime_of(events), "select count(*) from headrace.timer") == 0


async def test_timer_of_a_route_that_fails_is_not_set(events: Headrace) -> None:
    async def fail() -> None:
        async with events.transaction() as tx:
            tx.emit(Placed(customer="ada", number=1), after=3_600)
            raise ZeroDivisionError

    async def mistake() -> None:
        async with events.transaction() as tx:
            tx.emit(Placed(customer="ada", number=1), name="without a time")

    with pytest.raises(ZeroDivisionError):
        await fail()
    with pytest.raises(ConfigurationError, match="one of the two"):
        await mistake()
    assert await value(runtime_of(events), "select count(*) from headrace.timer") == 0


@pytest.mark.parametrize("emits", [False, True])
async def test_transaction_that_postgres_gave_up_is_no_success(events: Headrace, emits: bool) -> None:
    """COMMIT is answered without an error then, and nothing is kept."""

    async def route() -> None:
        async with events.transaction() as tx:
            await tx.connection.execute(WRITE, "ada", 1)
            with suppress(asyncpg.PostgresError):
                await tx.connection.execute(WRITE, "ada", None)
            if emits:
                tx.emit(Placed(customer="ada", number=1))

    with pytest.raises(StateError, match="gave the transaction up"):
        await route()
    assert await orders(events) == []


@pytest.mark.parametrize("fails", [False, True])
async def test_emit_behind_the_transaction_is_refused(events: Headrace, fails: bool) -> None:
    """As a background task does that was given the route's `tx`."""
    with suppress(KeyError):
        async with events.transaction() as tx:
            if fails:
                raise KeyError
    with pytest.raises(ConfigurationError, match=r"tx\.emit\(\) was called when its transaction was over"):
        tx.emit(Placed(customer="ada", number=2))
    with pytest.raises(ConfigurationError, match=r"tx\.cancel\(\) was called when"):
        tx.cancel(Placed, "ada")
