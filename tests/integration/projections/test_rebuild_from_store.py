"""A projection of stored events is built again from their streams, whatever the log has lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from pydantic import BaseModel

from headrace import Headrace, Table
from headrace.database.pool import connect
from headrace.dead_letters.decisions import expire
from headrace.errors import ConfigurationError, RecordTooLargeError
from headrace.log.memory import MemoryLog
from headrace.log.ports import Bounds, NewRecord, Position, TopicPartition
from headrace.rebuild.rebuild import Rebuilt, rebuild
from headrace.runtime import Runtime
from tests.support.accounts import Account, Deposited, Withdrawn
from tests.support.platform import client, execute, fetch, running, settings_for, until_settled, value
from tests.support.waiting import until

ACCOUNTS = [f"account-{number}" for number in range(10)]


class Total(BaseModel):
    account: str
    amount: int = 0
    events: int = 0


def bank(database_url: str) -> Headrace:
    platform = Headrace("bank", settings_for(database_url))
    platform.declare(Account)
    totals = platform.projection("totals", Total, key="account")

    @totals.on(Deposited)
    def deposited(event: Deposited, rows: Table[Total]) -> None:
        rows.add(event.account, amount=event.amount, events=1)

    @totals.on(Withdrawn)
    def withdrawn(event: Withdrawn, rows: Table[Total]) -> None:
        rows.add(event.account, amount=-event.amount, events=1)

    return platform


class ShortLog(MemoryLog):
    """A log whose retention passes: it then begins where it ends."""

    is_short = False

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        found = await super().bounds(partitions)
        return {
            each: Bounds(end, end, high) if self.is_short else Bounds(begin, end, high)
            for each, (begin, end, high) in found.items()
        }


async def build(runtime: Runtime, platform: Headrace, database_url: str, *, is_from_store: bool) -> Rebuilt:
    assert runtime.log is not None
    connection, other = await connect(database_url), await connect(database_url)
    try:
        projection = platform.registry.projections["totals"]
        snapshot = other if is_from_store else None
        return await rebuild(
            connection, runtime.log, platform.registry, projection, platform.settings, lambda *_: None,
            snapshot=snapshot,
        )  # fmt: skip
    finally:
        connection.terminate()
        other.terminate()


async def pay(platform: Headrace, account: str) -> None:
    def change(account: Account) -> None:
        account.deposit(5)
        account.withdraw(2)

    await platform.store().update(Account, account, change, attempts=100)


async def totals(runtime: Runtime) -> dict[str, tuple[int, int]]:
    rows = await fetch(runtime, "select account, amount, events from projections.totals")
    return {row["account"]: (row["amount"], row["events"]) for row in rows}


async def test_what_the_log_has_lost_is_in_the_streams(database_url: str) -> None:
    log, platform = ShortLog(), bank(database_url)
    async with running(platform, log) as runtime:
        for _ in range(5):
            await asyncio.gather(*(pay(platform, each) for each in ACCOUNTS))
        assert runtime.pool is not None
        await until_applied(runtime)
        before = await totals(runtime)
        assert before == dict.fromkeys(ACCOUNTS, (15, 10))
        log.is_short = True
        await execute(database_url, "update projections.totals set amount = 77")
        with pytest.raises(ConfigurationError, match=r"the log has lost the events before it; .* add --source store"):
            await build(runtime, platform, database_url, is_from_store=False)
        assert (await build(runtime, platform, database_url, is_from_store=True)).events == 100
        assert await totals(runtime) == before


async def test_events_on_their_way_are_counted_once(database_url: str) -> None:
    """Writers append while the table is built, again and again: no event is missing, and none is counted twice."""
    log, platform = MemoryLog(), bank(database_url)
    async with running(platform, log) as runtime:
        is_done = asyncio.Event()
        paid = 0

        async def write(account: str) -> None:
            nonlocal paid
            while not is_done.is_set():
                await pay(platform, account)
                paid += 1

        writers = [asyncio.create_task(write(each)) for each in ACCOUNTS]
        for _ in range(3):
            await execute(database_url, "update projections.totals set amount = 0, events = 0")
            await build(runtime, platform, database_url, is_from_store=True)
        is_done.set()
        await asyncio.gather(*writers)
        await until_applied(runtime)
        rows = (await totals(runtime)).values()
        assert (sum(amount for amount, _ in rows), sum(events for _, events in rows)) == (3 * paid, 2 * paid)


class Narrow(MemoryLog):
    """A log that refuses some deposits as too large, as long as the test says."""

    is_narrow = True

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        if self.is_narrow and any(b'"amount":666' in (record.value or b"") for record in records):
            raise RecordTooLargeError("Kafka refused an event for accounts as too large.")
        return await super().publish(records)


async def test_what_the_log_has_refused_stays_out_until_its_replay(database_url: str) -> None:
    """A stored event that never left the outbox was applied by nobody, whatever a person has decided about it."""

    def change(account: Account) -> None:
        account.deposit(5)
        account.deposit(666)

    log, platform = Narrow(), bank(database_url)
    async with running(platform, log) as runtime, client(platform) as http:
        for account in ("a", "b"):
            await platform.store().update(Account, account, change)
        await until_applied(runtime)
        before = {"a": (5, 1), "b": (5, 1)}
        assert await totals(runtime) == before
        await build(runtime, platform, database_url, is_from_store=True)
        assert await totals(runtime) == before
        of_a, of_b = sorted((await http.get("/dead-letters")).json()["dead_letters"], key=lambda each: each["key"])
        await http.post(f"/dead-letters/{of_a['id']}/discard")
        log.is_narrow = False
        await http.post(f"/dead-letters/{of_b['id']}/replay")

        async def is_applied() -> bool:
            return await totals(runtime) == {"a": (5, 1), "b": (671, 2)}

        await until(is_applied, "the replay is applied")
        connection = await connect(database_url)
        await connection.execute("update headrace.dead_letter set decided_at = now() - interval '31 days'")
        assert await expire(connection, 30) == 2
        await connection.close()
        await build(runtime, platform, database_url, is_from_store=True)
        assert await totals(runtime) == {"a": (5, 1), "b": (671, 2)}


async def until_applied(runtime: Runtime) -> None:
    """Wait until the outbox is empty, and what it held is applied."""

    async def is_empty() -> bool:
        return not await value(runtime, "select count(*) from headrace.outbox")

    await until(is_empty, "the outbox is empty")
    await until_settled(runtime, "totals")
