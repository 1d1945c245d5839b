"""An aggregate is what its events make of it: loaded, changed, saved, with and without a snapshot."""

from __future__ import annotations

import pytest

from headrace import Aggregate, Headrace, applies
from headrace.errors import ConfigurationError, VersionConflictError
from tests.support.accounts import Account, Balance, Deposited, Withdrawn, has_arrived, running_one
from tests.support.platform import execute, fetch, sample


async def test_aggregate_is_loaded_changed_and_saved(events: Headrace) -> None:
    store = events.store()
    account = await store.load(Account, "ada")
    assert (account.version, account.state) == (0, Balance())
    account.deposit(10)
    account.withdraw(3)
    assert (await store.save(account)).version == account.version == 2
    assert account.emitted == []
    account.withdraw(7)
    await store.save(account)
    again = await store.load(Account, "ada")
    assert (again.version, again.state) == (3, Balance(amount=0, applied=3))
    with pytest.raises(ValueError, match="ada has 0"):
        again.withdraw(1)
    assert (await store.save(again)).version == 3
    await has_arrived(events, {"ada": [10, -3, -7]})


async def test_stale_aggregate_is_refused(events: Headrace) -> None:
    store = events.store()
    first, second = await store.load(Account, "ada"), await store.load(Account, "ada")
    first.deposit(1)
    second.deposit(2)
    await store.save(first)
    with pytest.raises(VersionConflictError):
        await store.save(second)
    assert [event.amount for event in second.emitted] == [2], "it is as it was, so that its owner can look at it"


async def test_appends_conflicts_and_loads_are_counted(events: Headrace) -> None:
    """A stream that no aggregate has is one of the others: its name may be anything."""
    store, runtime = events.store(), running_one(events)
    first, second = await store.load(Account, "ada"), await store.load(Account, "ada")
    for account in (first, second):
        account.deposit(1)
        account.deposit(2)
    await store.save(first)
    with pytest.raises(VersionConflictError):
        await store.save(second)
    await store.append("anything", "ada", Deposited(account="ada", amount=3), expected=0)
    await store.load(Account, "ada")
    assert sample(runtime, "store_appended_total", stream="account") == 2
    assert sample(runtime, "store_appended_total", stream="other") == 1
    assert sample(runtime, "store_conflicts_total", stream="account") == 1
    assert sample(runtime, "store_loaded_events_count", stream="account") == 3
    assert sample(runtime, "store_loaded_events_sum", stream="account") == 2


async def test_snapshot_takes_the_place_of_the_events_before_it(events: Headrace, database_url: str) -> None:
    """The events are spoilt to see which of them a load reads."""
    store = events.store()
    for amount in range(1, 25):
        await store.update(Account, "ada", lambda account, amount=amount: account.deposit(amount))  # type: ignore[misc]
    rows = await fetch(running_one(events), "select version from headrace.snapshot")
    assert [row["version"] for row in rows] == [20]
    await execute(database_url, "update headrace.stream_event set data = data || '{\"amount\": 1000}'")
    account = await store.load(Account, "ada")
    assert (account.version, account.state) == (24, Balance(amount=210 + 4_000, applied=24))
    assert (await store.load(Account, "ada", version=22)).state.amount == 210 + 2_000
    assert (await store.load(Account, "ada", version=19)).state.amount == 19_000, "a later snapshot is of no use"
    (last,) = await store.read(Account, "ada", after=23)
    assert (await store.load(Account, "ada", at=last.appended_at)).state.amount == 24_000


async def test_append_of_many_events_passes_a_snapshot(events: Headrace) -> None:
    def fill(account: Account) -> None:
        for _ in range(25):
            account.deposit(1)

    await events.store().update(Account, "ada", fill)
    rows = await fetch(running_one(events), "select version from headrace.snapshot")
    assert [row["version"] for row in rows] == [25]


async def test_snapshot_of_other_code_is_not_read(events: Headrace, database_url: str) -> None:
    """Another class of the same stream counts otherwise, and says so with its `version`."""
    store = events.store()
    for _ in range(10):
        await store.update(Account, "ada", lambda account: account.deposit(1))

    class Doubled(Aggregate[Balance], stream="account", version=2, snapshot_every=10):
        @applies(Deposited)
        def deposited(self, event: Deposited) -> None:
            self.state.amount += 2 * event.amount

        @applies(Withdrawn)
        def withdrawn(self, event: Withdrawn) -> None:
            self.state.amount -= 2 * event.amount

    await execute(database_url, 'update headrace.snapshot set state = \'{"amount": 77, "applied": 0}\'')
    assert (await store.load(Account, "ada")).state.amount == 77
    other = Headrace("bank", events.settings)
    other.declare(Doubled)
    other.runtime = events.runtime
    assert (await other.store().load(Doubled, "ada")).state.amount == 20
    other.runtime = None


async def test_undeclared_aggregate_is_refused(events: Headrace) -> None:
    class Unknown(Aggregate[Balance]):
        @applies(Deposited)
        def deposited(self, event: Deposited) -> None:
            pass

    with pytest.raises(ConfigurationError, match=r"Unknown is not declared by this service; write events\.declare"):
        await events.store().load(Unknown, "ada")


async def test_event_that_nothing_applies_is_named(events: Headrace) -> None:
    class Deaf(Aggregate[Balance], stream="account"):
        @applies(Deposited)
        def deposited(self, event: Deposited) -> None:
            pass

    await events.store().append(Account, "ada", Withdrawn(account="ada", amount=1), expected=0)
    events.registry.aggregates["account"] = Deaf
    with pytest.raises(ConfigurationError, match=r"at version 1 the event account\.withdrawn, which no method of Deaf"):
        await events.store().load(Deaf, "ada")
