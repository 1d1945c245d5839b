"""A transaction that a team leaves open holds back its own key only; the relay neither waits for it nor ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from headrace import Headrace, sql
from headrace.log.memory import MemoryLog
from headrace.outbox import transaction
from headrace.outbox.relay import OutboxRelay
from headrace.outbox.rows import bucket_of
from headrace.runtime import Runtime
from headrace.timers.store import write as write_timers
from tests.support.obstacles import is_waiting_for_a_lock
from tests.support.orders import Placed, books, order_service
from tests.support.platform import client, execute, running, sample, settings_for, value
from tests.support.refusing_logs import Moody
from tests.support.waiting import until


@pytest_asyncio.fixture
async def events(database_url: str) -> AsyncIterator[Headrace]:
    platform = order_service(settings_for(database_url))
    async with running(platform, Moody()):
        yield platform


async def emit(platform: Headrace, customer: str, number: int, after: float | None = None) -> None:
    async with platform.transaction() as tx:
        tx.emit(Placed(customer=customer, number=number), after=after)


async def arrived(platform: Headrace, expected: dict[str, list[int]]) -> None:
    async def is_so() -> bool:
        return await books(runtime_of(platform)) == expected

    await until(is_so, f"{expected} has arrived")


def runtime_of(platform: Headrace) -> Runtime:
    assert platform.runtime is not None
    return platform.runtime


def relay_of(platform: Headrace) -> OutboxRelay:
    outbox = runtime_of(platform).outbox
    assert outbox is not None
    return outbox


async def test_timer_of_a_held_key_stops_nothing_else(events: Headrace, database_url: str) -> None:
    """More timers are due for it than one transaction takes."""
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():  # as a SQLAlchemy session behind its flush
        async with events.transaction(connection) as slow:
            slow.emit(Placed(customer="ada", number=0))
        await emit(events, "bob", 1)
        await arrived(events, {"bob": [1]})
        session = relay_of(events)._connection
        for number in range(1, 120):
            await emit(events, "ada", number, after=0.001)
        await emit(events, "bob", 2, after=0.001)
        await arrived(events, {"bob": [1, 2]})
        await emit(events, "bob", 3)
        await arrived(events, {"bob": [1, 2, 3]})
    await connection.close()
    await arrived(events, {"ada": list(range(120)), "bob": [1, 2, 3]})
    assert relay_of(events)._connection is session


async def test_timer_whose_row_is_held_stops_nothing_else(database_url: str) -> None:
    """The later timer of its key waits for it."""
    platform = order_service(settings_for(database_url))
    connection = await asyncpg.connect(database_url)
    for customer, number in (("ada", 1), ("ada", 2), ("bob", 1)):
        async with platform.transaction(connection) as tx:
            tx.emit(Placed(customer=customer, number=number), after=0)
    held = connection.transaction()
    await held.start()
    assert await connection.fetch("select from headrace.timer order by due_at limit 1 for update")
    async with running(platform, MemoryLog()) as runtime:
        await arrived(platform, {"bob": [1]})
        await emit(platform, "bob", 2)
        await arrived(platform, {"bob": [1, 2]})
        assert await value(runtime, "select count(*) from headrace.timer") == 2
        await held.commit()
        await connection.close()
        await arrived(platform, {"ada": [1, 2], "bob": [1, 2]})


async def test_replay_of_a_held_key_stops_nothing_else(events: Headrace, database_url: str) -> None:
    log = runtime_of(events).log
    assert isinstance(log, Moody)
    log.too_large = {1}
    await emit(events, "ada", 1)
    await until(lambda: sample(runtime_of(events), "outbox_refused_total", topic="orders") == 1, "it is a dead letter")
    connection = await asyncpg.connect(database_url)
    async with connection.transaction(), client(events) as http:
        async with events.transaction(connection) as slow:
            slow.emit(Placed(customer="ada", number=2))
        session = relay_of(events)._connection
        log.too_large = set()
        (letter,) = (await http.get("/dead-letters", params={"subscription": "outbox"})).json()["dead_letters"]
        assert (await http.post(f"/dead-letters/{letter['id']}/replay")).status_code < 300
        for number in range(3):
            await emit(events, "bob", number, after=0.001)
        await arrived(events, {"bob": [0, 1, 2]})
    await connection.close()
    await arrived(events, {"ada": [2, 1], "bob": [0, 1, 2]})
    assert relay_of(events)._connection is session


async def test_timer_has_its_turn_among_busy_routes(events: Headrace, database_url: str) -> None:
    """Eight of them wait for the bucket of the key, so that it is never free."""
    is_over = False

    async def keep_busy() -> None:
        connection = await asyncpg.connect(database_url)
        while not is_over:
            async with connection.transaction():
                await connection.execute(sql.outbox.LOCK_BUCKET, "shop", bucket_of(b"ada"))
        await connection.close()

    async def has_fired() -> bool:
        return not await value(runtime_of(events), "select count(*) from headrace.timer")

    async with asyncio.TaskGroup() as routes:
        for _ in range(8):
            routes.create_task(keep_busy())
        await until(lambda: is_waiting_for_a_lock(runtime_of(events)), "one of them waits")
        await emit(events, "ada", 1, after=0.001)
        try:
            await until(has_fired, "the timer has fired")
        finally:
            is_over = True
    await arrived(events, {"ada": [1]})


async def test_route_and_relay_meet_in_no_deadlock(
    events: Headrace, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A route has the bucket of a key and cancels a timer of it, which is due just now."""
    async with events.transaction() as tx:
        for customer in ("ada", "bob"):
            tx.emit(Placed(customer=customer, number=1), after=3_600, name="pay")
    session = relay_of(events)._connection

    async def behind_the_firing(*arguments: Any) -> float | None:
        await execute(database_url, "update headrace.timer set due_at = now()")
        relay_of(events).wake_timers(0.0)
        await arrived(events, {"bob": [1]})
        return await write_timers(*arguments)

    monkeypatch.setattr(transaction, "write_timers", behind_the_firing)
    async with events.transaction() as tx:
        tx.emit(Placed(customer="ada", number=2))
        tx.cancel(Placed, "ada", "pay")
    await arrived(events, {"ada": [2], "bob": [1]})
    assert relay_of(events)._connection is session
