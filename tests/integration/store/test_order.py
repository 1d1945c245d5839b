"""Events leave in the order of their stream, without a gap, whatever overlaps with whatever."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from headrace import Headrace
from headrace.errors import VersionConflictError
from tests.support.accounts import Account, Deposited, has_arrived, running_one
from tests.support.platform import value
from tests.support.waiting import until


async def test_append_that_commits_late_is_not_skipped(events: Headrace, database_url: str) -> None:
    """The hole of every global number: ada's row has the lower one and is committed after bob's is published."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            async with events.transaction(connection) as tx:  # a savepoint: its rows are written, and not committed
                await events.store(tx).append(Account, "ada", Deposited(account="ada", amount=1), expected=0)
            await events.store().append(Account, "bob", Deposited(account="bob", amount=2), expected=0)
            await has_arrived(events, {"bob": [2]})
        await has_arrived(events, {"ada": [1], "bob": [2]})
    finally:
        await connection.close()


async def test_second_append_waits_for_the_first_and_conflicts(events: Headrace, database_url: str) -> None:
    """It finds the version of the first one's commit, not that of its own snapshot."""
    connection = await asyncpg.connect(database_url)
    try:
        outer = connection.transaction()
        await outer.start()
        async with events.transaction(connection) as tx:
            await events.store(tx).append(Account, "ada", Deposited(account="ada", amount=1), expected=0)
        second = asyncio.create_task(
            events.store().append(Account, "ada", Deposited(account="ada", amount=2), expected=0)
        )
        waits = "select count(*) from pg_locks where not granted"
        await until(lambda: _is_true(events, waits), "the second one waits")
        await outer.commit()
        with pytest.raises(VersionConflictError, match="'account' of 'ada' is at version 1, not 0: another writer"):
            await second
    finally:
        await connection.close()
    await has_arrived(events, {"ada": [1]})


async def test_append_behind_one_that_is_rolled_back_succeeds(events: Headrace, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        outer = connection.transaction()
        await outer.start()
        async with events.transaction(connection) as tx:
            await events.store(tx).append(Account, "ada", Deposited(account="ada", amount=1), expected=0)
        second = asyncio.create_task(
            events.store().append(Account, "ada", Deposited(account="ada", amount=2), expected=0)
        )
        await until(lambda: _is_true(events, "select count(*) from pg_locks where not granted"), "it waits")
        await outer.rollback()
        assert (await second).version == 1
    finally:
        await connection.close()
    await has_arrived(events, {"ada": [2]})


async def test_overlapping_appends_arrive_in_the_order_of_versions(events: Headrace) -> None:
    """Forty writers append to three streams at any version; what arrives is what the streams hold, in their order."""
    store = events.store()
    accounts = ["ada", "bob", "eve"]

    async def write(number: int) -> None:
        account = accounts[number % 3]
        await store.append(
            Account,
            account,
            Deposited(account=account, amount=number),
            Deposited(account=account, amount=-number),
            expected=None,
        )

    await asyncio.gather(*(write(number) for number in range(1, 121)))
    streams = {each: await store.read(Account, each) for each in accounts}
    assert all([event.version for event in stream] == [*range(1, 81)] for stream in streams.values())
    times = [event.appended_at for event in streams["ada"]]
    assert times == sorted(times)
    await has_arrived(events, {each: [event.event.amount for event in stream] for each, stream in streams.items()})
    assert await value(running_one(events), "select count(*) from headrace.outbox") == 0


async def _is_true(events: Headrace, query: str) -> bool:
    return bool(await value(running_one(events), query))
