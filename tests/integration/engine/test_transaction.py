"""A handler's own SQL, its state and its emits happen together or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from headrace import Emit, Event, Headrace, State, Transaction
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from tests.support.platform import (
    Notes,
    fetch,
    noted,
    publish,
    running,
    sample,
    settings_for,
    spread,
    states,
    until_settled,
    value,
)
from tests.support.postgres_proxy import PostgresProxy
from tests.support.waiting import until

PAGES = [f"page-{number}" for number in range(8)]


async def test_sql_state_and_emits_commit_together(database_url: str, topic_name: str) -> None:
    platform = _booking(settings_for(database_url), topic_name)
    await _create_table(database_url)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, PAGES, 10))
        await until_settled(runtime, "bookings", "echoes")
        await _check(runtime, [*range(1, 11)])


async def test_event_that_fails_leaves_neither_sql_nor_state_nor_emits(database_url: str, topic_name: str) -> None:
    def fail(event: Any) -> None:
        if event.number == 5:
            raise ValueError("after the insert, before the end")

    platform = _booking(settings_for(database_url, retry_attempts=2), topic_name, after=fail)
    await _create_table(database_url)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, PAGES, 10))
        await until_settled(runtime, "bookings", "echoes")
        await _check(runtime, [1, 2, 3, 4, 6, 7, 8, 9, 10])
        assert await value(runtime, "select count(*) from headrace.dead_letter") == len(PAGES)


async def test_batch_that_loses_its_commit_is_applied_once(database_url: str, topic_name: str) -> None:
    """The commit that was lost leaves nothing behind."""
    await _create_table(database_url)
    async with PostgresProxy(database_url) as proxy:
        platform = _booking(settings_for(proxy.url, partitions=1), topic_name)
        async with running(platform, MemoryLog()) as runtime:
            for number in range(1, 11):
                if number % 2:
                    proxy.drop_commit()
                else:
                    proxy.drop_answer_to_commit()
                await publish(runtime, *(noted(topic_name, page, number) for page in PAGES))
                await until_settled(runtime, "bookings", "echoes")
            assert proxy.cuts == 10
            await _check(runtime, [*range(1, 11)])


async def test_sessions_that_end_under_a_handler_blame_no_event(database_url: str, topic_name: str) -> None:
    await _create_table(database_url)
    killed = 0

    async def kill(event: Any, transaction: Transaction) -> None:
        nonlocal killed
        if event.number == 5 and killed < 3:
            killed += 1
            await transaction.execute("select pg_terminate_backend(pg_backend_pid())")

    platform = _booking(settings_for(database_url, retry_attempts=1), topic_name, during=kill)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, PAGES, 10))
        await until_settled(runtime, "bookings", "echoes")
        await _check(runtime, [*range(1, 11)])
        assert killed == 3
        assert sample(runtime, "events_parked_total") == 0


@pytest.mark.parametrize(
    "sql",
    [
        "commit",
        "  COMMIT;",
        "rollback",
        "begin",
        "start transaction",
        "savepoint a",
        "end",
        "select 1; commit; select 2",
    ],
)
async def test_transaction_control_is_refused(database_url: str, topic_name: str, sql: str) -> None:
    async def steer(event: Any, transaction: Transaction) -> None:
        if event.number == 2:
            await transaction.execute(sql)

    platform = _booking(settings_for(database_url, partitions=1, retry_attempts=1), topic_name, during=steer)
    await _create_table(database_url)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a"], 3))
        await until_settled(runtime, "bookings", "echoes")
        assert await _booked(runtime) == {"a": [1, 3]}
        error = await value(runtime, "select error from headrace.dead_letter")
        assert "a handler's Transaction commits with its batch; remove BEGIN, COMMIT" in error


async def test_fenced_owner_leaves_no_sql_behind(database_url: str, topic_name: str) -> None:
    """The first owner stands in its handler while a second one claims the partition and does the work."""
    await _create_table(database_url)
    entered, release, log = asyncio.Event(), asyncio.Event(), MemoryLog()

    async def wait(event: Any, transaction: Transaction) -> None:
        if not entered.is_set():
            entered.set()
            await release.wait()

    settings = settings_for(database_url, partitions=1)
    first, second = _booking(settings, topic_name, during=wait), _booking(settings, topic_name)
    async with running(first, log) as early:
        await publish(early, *spread(topic_name, ["a"], 3))
        await entered.wait()
        starting = asyncio.create_task(_start_and_settle(second, log))
        # It waits for the claim's row, which the first owner holds from before its handlers' SQL.
        await until(lambda: _is_waiting(early), "the second owner waits for the first one's transaction")
        release.set()
        await starting
        assert await _booked(early) == {"a": [1, 2, 3]}


async def _start_and_settle(platform: Headrace, log: MemoryLog) -> None:
    async with running(platform, log) as runtime:
        await until_settled(runtime, "bookings", "echoes")


async def _is_waiting(runtime: Any) -> bool:
    sql = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    return bool(await value(runtime, sql))


async def _check(runtime: Any, numbers: list[int]) -> None:
    expected = dict.fromkeys(PAGES, numbers)
    kept = {page: notes["numbers"] for page, notes in (await states(runtime, "bookings", "notes")).items()}
    echoes = {page: notes["numbers"] for page, notes in (await states(runtime, "echoes", "notes")).items()}
    assert await _booked(runtime) == kept == echoes == expected


async def _booked(runtime: Any) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in await fetch(runtime, "select page, number from booking order by at"):
        found.setdefault(row["page"], []).append(row["number"])
    return found


async def _create_table(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("create table public.booking (at bigserial, page text, number int)")
    await connection.close()


async def _nothing(event: Any, transaction: Transaction) -> None:
    pass


def _booking(settings: Settings, topic: str, during: Any = _nothing, after: Any = lambda event: None) -> Headrace:
    """A service whose handler writes a row, a state and an event; a second subscription notes what was emitted."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    class Booked(Event, type="booked", topic=f"{topic}-booked", key="page"):
        page: str
        number: int

    bookings, echoes = platform.subscription("bookings"), platform.subscription("echoes")

    @bookings.on(Noted)
    async def book(event: Noted, kept: State[Notes], transaction: Transaction, emit: Emit) -> None:
        emit(Booked(page=event.page, number=event.number))
        kept.numbers.append(event.number)
        await transaction.execute("insert into booking (page, number) values ($1, $2)", event.page, event.number)
        await during(event, transaction)
        after(event)

    @echoes.on(Booked)
    def echo(event: Booked, kept: State[Notes]) -> None:
        kept.numbers.append(event.number)

    return platform
