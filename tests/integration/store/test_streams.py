"""Streams are appended to at a version, and read as they are, at a version and at a time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from headrace import Event, Headrace, Outbox, upcast
from headrace.errors import ConfigurationError, SchemaError, StateUnavailableError, VersionConflictError
from headrace.log.memory import MemoryLog
from tests.support.accounts import Account, Withdrawn, bank, deposit, has_arrived, running_one
from tests.support.platform import execute, fetch, running, settings_for
from tests.support.routes import application, caller
from tests.support.waiting import until


async def test_append_expects_a_version(events: Headrace) -> None:
    store = events.store()
    assert await store.append(Account, "ada", deposit(1), deposit(2), expected=0) == (
        2,
        ["account/ada/1", "account/ada/2"],
    )
    with pytest.raises(VersionConflictError) as raised:
        await store.append(Account, "ada", deposit(3), expected=1)
    error = raised.value
    assert (error.stream, error.key, error.expected, error.actual) == ("account", "ada", 1, 2)
    with pytest.raises(VersionConflictError, match="is at version 2, not 0"):
        await store.append(Account, "ada", deposit(3), expected=0)
    with pytest.raises(VersionConflictError, match="is at version 0, not 7"):
        await store.append(Account, "bob", deposit(3, "bob"), expected=7)
    assert (await store.append(Account, "ada", deposit(3), expected=2)).version == 3
    assert (await store.append(Account, "ada", deposit(4), expected=None)).version == 4
    assert await store.append(Account, "ada", expected=4) == (4, [])
    await has_arrived(events, {"ada": [1, 2, 3, 4]})


async def test_stream_is_read_at_a_version_and_at_a_time(events: Headrace) -> None:
    store = events.store()
    for amount in range(1, 4):
        await store.append(Account, "ada", deposit(amount), deposit(amount * 10), expected=None)
    stream = await store.read(Account, "ada")
    assert [each.event.amount for each in stream] == [1, 10, 2, 20, 3, 30]
    assert [each.version for each in await store.read("account", "ada", after=2, limit=3)] == [3, 4, 5]
    assert [each.version for each in await store.read(Account, "ada", version=2)] == [1, 2]
    assert len(await store.read(Account, "ada", version=10**30)) == 6
    assert await store.read(Account, "ada", after=10**30) == await store.read(Account, "nul\x00") == []
    assert (await store.load(Account, "nul\x00")).version == 0
    at = stream[3].appended_at
    assert [each.version for each in await store.read(Account, "ada", at=at)] == [1, 2, 3, 4]
    assert (await store.load(Account, "ada", at=at)).state.amount == 33
    assert (await store.load(Account, "ada", version=3)).state.amount == 13
    assert (await store.load(Account, "ada")).state.amount == 66
    before = await store.load(Account, "ada", at=datetime(2020, 1, 1, tzinfo=UTC))
    assert (before.version, before.state.amount) == (0, 0)
    with pytest.raises(ConfigurationError, match="has no time zone"):
        await store.load(Account, "ada", at=datetime(2020, 1, 1))  # noqa: DTZ001 - that is the mistake


async def test_events_know_their_correlation_and_cause(events: Headrace) -> None:
    await events.store(correlation_id="visit-1", causation_id="click-7").append(Account, "ada", deposit(1), expected=0)
    (stored,) = await events.store().read(Account, "ada")
    assert (stored.correlation_id, stored.causation_id) == ("visit-1", "click-7")
    log = running_one(events).log
    assert isinstance(log, MemoryLog)
    await has_arrived(events, {"ada": [1]})


async def test_what_no_stream_can_hold_is_refused(events: Headrace) -> None:
    store = events.store()
    with pytest.raises(ConfigurationError, match="its key 'account' is 'bob', and the stream's is 'ada'"):
        await store.append(Account, "ada", deposit(1, "bob"), expected=0)
    with pytest.raises(ConfigurationError, match=r"int cannot be appended.*events\.declare\(int\)"):
        await store.append(Account, "ada", 7, expected=0)
    with pytest.raises(SchemaError, match="at least one character, and no NUL"):
        await store.append(Account, "a\x00", deposit(1, "a\x00"), expected=0)
    with pytest.raises(SchemaError, match="the key has 513 characters"):
        await store.append(Account, "x" * 513, deposit(1, "x" * 513), expected=0)
    with pytest.raises(ConfigurationError, match=r"'cart/eu' cannot have a '/' .*; write 'cart\.eu', or put"):
        await store.append("cart/eu", "1", deposit(1, "1"), expected=0)
    with pytest.raises(ConfigurationError, match=r"events\.store\(\) takes the transaction of .*, not a str"):
        events.store("a transaction")
    assert await fetch(running_one(events), "select * from headrace.stream") == []


async def test_an_exception_takes_back_rows_and_events(events: Headrace) -> None:
    runtime = running_one(events)
    await runtime.pool.execute("create table visits (name text)")  # type: ignore[union-attr]

    async def fail() -> None:
        async with events.transaction() as tx:
            await tx.connection.execute("insert into visits values ('ada')")
            await events.store(tx).append(Account, "ada", deposit(1), expected=0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await fetch(runtime, "select name from visits") == []
    assert await events.store().read(Account, "ada") == []
    async with events.transaction() as tx:
        await tx.connection.execute("insert into visits values ('ada')")
        await events.store(tx).append(Account, "ada", deposit(2), expected=0)
    await has_arrived(events, {"ada": [2]})


async def test_commit_that_is_lost_leaves_no_event(events: Headrace) -> None:
    """The server ends the session between the append and the commit, as a crash of either side would."""
    pool = running_one(events).pool
    assert pool is not None

    async def lose() -> None:
        async with events.transaction() as tx:
            await events.store(tx).append(Account, "ada", deposit(1), expected=0)
            await pool.execute("select pg_terminate_backend($1, 5000)", tx.connection.get_server_pid())

    with pytest.raises(StateUnavailableError):
        await lose()
    assert await events.store().read(Account, "ada") == []
    await events.store().append(Account, "ada", deposit(2), expected=0)
    await has_arrived(events, {"ada": [2]})


async def test_script_without_a_service_appends(database_url: str) -> None:
    platform = bank(settings_for(database_url))
    connection = await asyncpg.connect(database_url)
    try:
        async with platform.transaction(connection) as tx:
            await platform.store(tx).append(Account, "ada", deposit(1), expected=0)
    finally:
        await connection.close()
    async with running(platform, MemoryLog()):
        await has_arrived(platform, {"ada": [1]})


async def test_conflict_in_a_route_is_answered_409(events: Headrace) -> None:
    app = application(events)

    @app.post("/accounts/{account}/{amount}", status_code=201)
    async def post(account: str, amount: int, expected: int, tx: Outbox) -> int:
        return (await events.store(tx).append(Account, account, deposit(amount, account), expected=expected)).version

    async with caller(app) as client:
        assert (await client.post("/accounts/ada/5?expected=0")).json() == 1
        refused = await client.post("/accounts/ada/5?expected=0")
        assert refused.status_code == 409
        assert "is at version 1, not 0" in refused.text
        assert (await client.post("/accounts/ada/6?expected=1")).json() == 2
    await has_arrived(events, {"ada": [5, 6]})


async def test_old_versions_of_an_event_are_brought_up(database_url: str) -> None:
    """Two services of one name stand for the code before and after two deployments."""

    log = MemoryLog()
    old, new = (Headrace("bank", settings_for(database_url)) for _ in range(2))

    class Moved(Event, type="moved", topic="moves", key="account"):
        account: str
        amount: int

    class InCents(Event, type="moved", topic="moves", key="account", version=3):
        account: str
        cents: int

    old.declare(Moved)
    new.declare(InCents)
    async with running(old, log, is_waiting=True):
        await old.store().append("moves", "ada", Moved(account="ada", amount=3), expected=0)
    async with running(new, log, is_waiting=True):
        with pytest.raises(ConfigurationError, match=r"version 1: moved: .*add an @upcast\(InCents, version=1\)"):
            await new.store().read("moves", "ada")

        @upcast(InCents, version=1)
        def in_cents(data: dict[str, Any]) -> dict[str, Any]:
            return {"account": data["account"], "cents": data["amount"] * 100}

        await new.store().append("moves", "ada", InCents(account="ada", cents=5), expected=1)
        assert [each.event.cents for each in await new.store().read("moves", "ada")] == [300, 5]
    async with running(old, log, is_waiting=True):
        with pytest.raises(ConfigurationError, match="has version 3 and this service knows version 1"):
            await old.store().read("moves", "ada")


async def test_handlers_get_old_events_brought_up(database_url: str) -> None:
    """One event is in the log when the class changes, and its handler knows the new class only."""
    log = MemoryLog()
    old, new = (Headrace("bank", settings_for(database_url)) for _ in range(2))

    class Named(Event, type="named", topic="names", key="account"):
        account: str
        name: str

    class NamedTwice(Event, type="named", topic="names", key="account", version=2):
        account: str
        first: str
        last: str

    @upcast(NamedTwice, version=1)
    def split(data: dict[str, Any]) -> dict[str, Any]:
        first, _, last = data["name"].partition(" ")
        return {"account": data["account"], "first": first, "last": last}

    old.declare(Named)
    seen: list[str] = []

    @new.subscription("names").on(NamedTwice)
    def note(event: NamedTwice) -> None:
        seen.append(event.last)

    async with running(old, log, is_waiting=True):
        await old.publish(Named(account="ada", name="Ada Lovelace"))
    async with running(new, log):
        await new.publish(NamedTwice(account="ada", first="Ada", last="King"))
        await until(lambda: seen == ["Lovelace", "King"], "both have arrived")


async def test_stored_event_without_a_class_is_named(events: Headrace, database_url: str) -> None:
    await events.store().append(Account, "ada", deposit(1), expected=0)
    await execute(database_url, "update headrace.stream_event set type = 'gone'")
    with pytest.raises(ConfigurationError, match="'account' of 'ada', version 1: the type 'gone' is not declared"):
        await events.store().read(Account, "ada")


async def test_many_writers_of_one_account_are_repeated_when_asked(events: Headrace) -> None:
    """Without a lock only one of them can win each version; the others load again."""
    loaded = 0

    async def change(account: Account) -> None:
        nonlocal loaded
        loaded += 1
        await asyncio.sleep(0)
        account.deposit(1)

    store = events.store()
    await asyncio.gather(*(store.update(Account, "ada", change, attempts=1_000) for _ in range(8)))
    assert (await store.load(Account, "ada")).state.amount == 8
    assert loaded > 8, "nobody had to repeat, so this test shows nothing"
    await has_arrived(events, {"ada": [1] * 8})


async def test_conflict_is_raised_when_no_repetition_was_asked(events: Headrace) -> None:
    async def change(account: Account) -> None:
        await events.store().append(Account, "ada", deposit(1), expected=0)
        account.deposit(2)

    with pytest.raises(VersionConflictError):
        await events.store().update(Account, "ada", change)
    await has_arrived(events, {"ada": [1]})


async def test_writers_in_transactions_wait_for_each_other(events: Headrace) -> None:
    """The lock is there before the stream is; whoever waits loads what the one before has committed."""

    async def pay(amount: int) -> None:
        async with events.transaction() as tx:
            await events.store(tx).update(Account, "ada", lambda account: account.deposit(amount))

    await asyncio.gather(*(pay(1) for _ in range(8)))
    assert (await events.store().load(Account, "ada")).version == 8
    with pytest.raises(ConfigurationError, match="give it: events"):
        await events.store().load(Account, "ada", lock=True)
    async with events.transaction() as tx:
        assert (await events.store(tx).load(Account, "eve", lock=True)).version == 0
        with pytest.raises(ConfigurationError, match="attempts= is for events"):
            await events.store(tx).update(Account, "ada", lambda account: None, attempts=2)
    await events.store().append(Account, "eve", Withdrawn(account="eve", amount=1), expected=0)
