"""What a handler appends commits with its batch: exactly once, whatever fails or is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from headrace import Envelope, Event, Headrace, State, Transaction
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.settings import Settings
from tests.support.accounts import Account, Arrived, Deposited, bank, has_arrived, running_one
from tests.support.platform import fetch, publish, record, running, settings_for, until_settled, value
from tests.support.postgres_proxy import PostgresProxy

ACCOUNTS = ["ada", "bob", "eve"]


class Paid(Event, type="paid", topic="payments", key="account"):
    account: str
    amount: int


def paying_bank(settings: Settings, after: Callable[[Paid], None] = lambda event: None) -> Headrace:
    """Return a bank whose handler pays into accounts; `after` may raise when the event is appended."""
    platform = bank(settings)
    payments = platform.subscription("payments")

    @payments.on(Paid)
    async def pay(event: Paid, tx: Transaction, kept: State[Arrived]) -> None:
        kept.amounts.append(event.amount)
        await platform.store(tx).update(Account, event.account, lambda account: account.deposit(event.amount))
        after(event)

    return platform


def paid(account: str, amount: int) -> NewRecord:
    data = {"account": account, "amount": amount}
    return record("payments", "paid", data, key=account, id=f"{account}-{amount}")


async def streams(platform: Headrace) -> dict[str, list[int]]:
    return {each: [e.event.amount for e in await platform.store().read(Account, each)] for each in ACCOUNTS}


async def test_appends_of_a_handler_commit_with_its_batch(database_url: str) -> None:
    platform = paying_bank(settings_for(database_url))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(paid(each, number) for number in range(1, 11) for each in ACCOUNTS))
        await until_settled(runtime, "payments")
        await has_arrived(platform, {key: [*range(1, 11)] for key in ACCOUNTS})
        stored = await platform.store().read(Account, "ada")
        assert [each.version for each in stored] == [*range(1, 11)]
        assert (stored[0].correlation_id, stored[0].causation_id) == ("ada-1", "ada-1")
        rows = await fetch(runtime, "select distinct appended_at from headrace.stream_event where key = 'ada'")
        assert len(rows) <= 10


async def test_event_that_fails_appends_nothing(database_url: str) -> None:
    """The others of its batch do, though it is run again with a savepoint for each."""

    def fail(event: Paid) -> None:
        if event.amount == 5:
            raise ValueError("behind the append")

    platform = paying_bank(settings_for(database_url, retry_attempts=2), fail)
    expected = {key: [1, 2, 3, 4, 6, 7, 8] for key in ACCOUNTS}
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(paid(each, number) for number in range(1, 9) for each in ACCOUNTS))
        await until_settled(runtime, "payments")
        assert await streams(platform) == expected
        await has_arrived(platform, expected)
        assert await value(runtime, "select count(*) from headrace.dead_letter") == len(ACCOUNTS)


async def test_batch_that_loses_its_commit_appends_once(database_url: str) -> None:
    async with PostgresProxy(database_url) as proxy:
        platform = paying_bank(settings_for(proxy.url, partitions=1))
        async with running(platform, MemoryLog()) as runtime:
            for number in range(1, 7):
                if number % 2:
                    proxy.drop_commit()
                else:
                    proxy.drop_answer_to_commit()
                await publish(runtime, *(paid(each, number) for each in ACCOUNTS))
                await until_settled(runtime, "payments")
            assert proxy.cuts == 6
            expected = {key: [*range(1, 7)] for key in ACCOUNTS}
            assert await streams(platform) == expected
            await has_arrived(platform, expected)


async def test_session_of_sqlalchemy_appends_in_its_transaction(database_url: str) -> None:
    platform = bank(settings_for(database_url))
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with running(platform, MemoryLog()) as runtime:

            async def write(amount: int, *, fails: bool = False) -> None:
                async with AsyncSession(engine) as session, session.begin():
                    store = platform.store(session, correlation_id="visit-1")
                    await store.append(Account, "ada", Deposited(account="ada", amount=amount), expected=None)
                    await store.update(Account, "ada", lambda account: account.deposit(amount + 1))
                    if fails:
                        raise ZeroDivisionError

            await write(1)
            with pytest.raises(ZeroDivisionError):
                await write(3, fails=True)
            await write(5)
            await has_arrived(platform, {"ada": [1, 2, 5, 6]})
            stored = await platform.store().read(Account, "ada")
            assert [(each.version, each.correlation_id) for each in stored] == [(n, "visit-1") for n in range(1, 5)]
            assert await value(runtime, "select count(*) from headrace.outbox") == 0
    finally:
        await engine.dispose()


async def test_published_events_name_their_stream(database_url: str) -> None:
    """What subscriptions get has the stream's key, its version as `sequence`, and who caused it."""
    platform = bank(settings_for(database_url))
    seen: list[Any] = []

    @platform.subscription("watch").on(Deposited)
    def watch(event: Deposited, envelope: Envelope) -> None:
        seen.append(envelope)

    async with running(platform, MemoryLog()):
        store = platform.store(correlation_id="visit-1", causation_id="click-7")
        await store.append(Account, "ada", *(Deposited(account="ada", amount=n) for n in (1, 2)), expected=0)
        await has_arrived(platform, {"ada": [1, 2]})
        await until_settled(running_one(platform), "watch")
    assert [(e.id, e.partitionkey, e.sequence) for e in seen] == [
        ("account/ada/1", "ada", "1"),
        ("account/ada/2", "ada", "2"),
    ]
    assert {(e.source, e.correlationid, e.causationid) for e in seen} == {
        ("/bank/account.deposited", "visit-1", "click-7")
    }
