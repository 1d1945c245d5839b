"""No row of the outbox is skipped, and the order of a key is that of the commits, whatever overlaps with whatever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Literal

import asyncpg
import pytest
import pytest_asyncio

from headrace import Headrace
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.outbox.rows import BUCKETS
from tests.support.orders import Placed, books, create_orders, order_service
from tests.support.platform import running, settings_for, value
from tests.support.waiting import until

CUSTOMERS = 5
TRANSACTIONS = 200


@pytest_asyncio.fixture
async def events(database_url: str) -> AsyncIterator[Headrace]:
    await create_orders(database_url)
    platform = order_service(settings_for(database_url))
    async with running(platform, MemoryLog()):
        yield platform


async def has_arrived(platform: Headrace, expected: dict[str, list[int]]) -> None:
    runtime = platform.runtime
    assert runtime is not None

    async def is_so() -> bool:
        return await books(runtime) == expected

    await until(is_so, f"{expected} has arrived")


def _same_slot(*, bucket: bool) -> str:
    """A customer whose key shares the slot of "ada", and the bucket too if that is asked for."""
    ada = partition_for(b"ada", BUCKETS)
    for number in range(1_000_000):
        name = f"customer-{number}"
        found = partition_for(name.encode(), BUCKETS)
        if (found == ada) if bucket else (found != ada and found % 64 == ada % 64):
            return name
    raise AssertionError("no such customer")


async def test_a_lower_number_that_commits_later_is_published(events: Headrace, database_url: str) -> None:
    """The hole of every cursor: both rows are of one slot, and the higher number is published before the lower one is
    committed."""
    other = _same_slot(bucket=False)
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            async with events.transaction(connection) as late:  # a savepoint: its row has a number, no commit
                late.emit(Placed(customer="ada", number=1))
            low = await connection.fetchval("select number from headrace.outbox")
            async with events.transaction() as tx:
                tx.emit(Placed(customer=other, number=2))
            high = await connection.fetchval("select last_value from headrace.outbox_number")
            assert low < high
            await has_arrived(events, {other: [2]})
        await has_arrived(events, {other: [2], "ada": [1]})
    finally:
        await connection.close()


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_a_second_transaction_of_the_key_waits_for_the_first(
    events: Headrace, database_url: str, isolation: Literal["read_committed", "repeatable_read", "serializable"]
) -> None:
    """Its number is taken after the first one's commit, though its snapshot is older than that."""
    first, second = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    try:
        outer = first.transaction()
        await outer.start()
        async with events.transaction(first) as tx:
            tx.emit(Placed(customer="ada", number=1))

        async def write_second() -> None:
            async with second.transaction(isolation=isolation):
                await second.fetchval("select count(*) from orders")  # takes the snapshot
                async with events.transaction(second) as tx:
                    tx.emit(Placed(customer="ada", number=2))

        writing = asyncio.create_task(write_second())

        async def is_waiting() -> bool:
            waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted and objsubid = 2"
            return bool(await first.fetchval(waits))

        await until(is_waiting, "the second one waits")
        assert not writing.done()
        await outer.commit()
        await writing
    finally:
        await first.close()
        await second.close()
    await has_arrived(events, {"ada": [1, 2]})


async def test_many_overlapping_transactions_arrive_in_commit_order(events: Headrace) -> None:
    """Each takes the next number of one or two customers from a row that it locks, so that the numbers tell the order
    of the commits; the emits come in any order, and some transactions are rolled back."""
    runtime = events.runtime
    assert runtime is not None and runtime.pool is not None
    customers = [f"customer-{number}" for number in range(CUSTOMERS)]
    await runtime.pool.execute("create table counter (customer text primary key, number integer not null default 0)")
    await runtime.pool.executemany("insert into counter (customer) values ($1)", [(each,) for each in customers])
    chance = random.Random(7)

    async def place(chosen: list[str], *, fails: bool) -> None:
        try:
            async with events.transaction() as tx:
                placed = []
                for customer in sorted(chosen):
                    query = "update counter set number = number + 1 where customer = $1 returning number"
                    number = await tx.connection.fetchval(query, customer)
                    placed.append(Placed(customer=customer, number=number))
                for event in reversed(placed):
                    tx.emit(event)
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    await asyncio.gather(
        *(
            place(chance.sample(customers, chance.choice([1, 2])), fails=chance.random() < 0.2)
            for _ in range(TRANSACTIONS)
        )
    )
    rows = await runtime.pool.fetch("select customer, number from counter")
    await has_arrived(events, {row["customer"]: list(range(1, row["number"] + 1)) for row in rows})
    assert await value(runtime, "select count(*) from headrace.dead_letter") == 0


async def test_a_thousand_events_of_one_transaction_keep_their_order(events: Headrace) -> None:
    async with events.transaction() as tx:
        for number in range(3_000):
            tx.emit(Placed(customer=f"customer-{number % 3}", number=number))
    await has_arrived(events, {f"customer-{each}": list(range(each, 3_000, 3)) for each in range(3)})
