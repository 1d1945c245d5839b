"""An event's identity is (source, type, id), for batches, emits and replays alike."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from headrace import Emit, Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from headrace.settings import Settings
from headrace.telemetry.logging import FIELDS
from tests.support.platform import (
    Notes,
    client,
    execute,
    fetch,
    has_pages,
    notebook,
    noted,
    pages,
    publish,
    record,
    running,
    sample,
    settings_for,
    states,
    until_settled,
    value,
    watched,
)
from tests.support.waiting import until

Marks = list[tuple[str, int, int]]


def shop(settings: Settings, topic: str, *, with_payments: bool = True) -> Headrace:
    """Return a service with two event types on one topic; each order's event is noted, and announced by an emit."""
    platform = Headrace("shop", settings)

    class Announced(Event, type="announced", topic=f"{topic}-announced", key="order"):
        order: str
        what: int

    class Placed(Event, type="order.placed", topic=topic, key="order"):
        order: str

    class Paid(Event, type="order.paid", topic=f"{topic}-paid", key="order"):
        order: str

    orders, mails = platform.subscription("orders"), platform.subscription("mails")

    @orders.on(Placed)
    def place(event: Placed, kept: State[Notes], emit: Emit) -> None:
        kept.numbers.append(1)
        emit(Announced(order=event.order, what=1))

    if with_payments:

        @orders.on(Paid)
        def pay(event: Paid, kept: State[Notes], emit: Emit) -> None:
            kept.numbers.append(2)
            emit(Announced(order=event.order, what=2))

    @mails.on(Announced)
    def send(event: Announced, kept: State[Notes]) -> None:
        kept.numbers.append(event.what)

    return platform


async def test_one_idempotency_key_for_two_types_applies_both(database_url: str, topic_name: str) -> None:
    """A client that gives a whole order one key loses nothing, and the same call again changes nothing."""
    platform = shop(settings_for(database_url), topic_name)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        for type in ("order.placed", "order.paid", "order.placed", "order.paid"):
            answer = await http.post(f"/events/{type}", json={"order": "o-1"}, headers={"Idempotency-Key": "k-1"})
            assert answer.status_code == 202, answer.text
            await until_settled(runtime, "orders", "mails")
        assert await _numbers(runtime, "orders") == {"o-1": [1, 2]}
        assert await _numbers(runtime, "mails") == {"o-1": [1, 2]}
        assert sample(runtime, "events_skipped_total", subscription="orders", reason="duplicate_id") == 2


async def test_events_of_one_id_and_two_types_both_emit(database_url: str, topic_name: str) -> None:
    """What they emit has two ids, so that both arrive, also when an owner publishes them a second time."""
    log, platform = MemoryLog(), shop(settings_for(database_url), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, _placed(topic_name, "o-1", "same"), _paid(topic_name, "o-1", "same"))
        await until_settled(runtime, "orders", "mails")
        assert {1, 2} == set((await _numbers(runtime, "mails"))["o-1"])
    await execute(database_url, "update headrace.claim set emitted_through = 0")
    async with running(platform, log) as runtime:
        await until_settled(runtime, "orders", "mails")
        assert sorted((await _numbers(runtime, "mails"))["o-1"]) == [1, 2]
        assert sample(runtime, "emits_republished_total") == 2


async def test_copy_of_a_replayed_event_is_recognised(database_url: str, topic_name: str) -> None:
    """A dead letter is replayed, then its producer sends the event again: it is applied once, also after a restart."""
    log = MemoryLog()
    letter = record(topic_name, "order.paid", {"order": "o-1"}, key="o-1", id="paid-1")
    async with running(_of_types(database_url, topic_name, "order.placed"), log) as runtime:
        await publish(runtime, letter)
        await until_settled(runtime, "orders")
        assert await _reasons(runtime) == ["unknown_type"]
    platform = _of_types(database_url, topic_name, "order.placed", "order.paid")
    async with watched(platform, log) as runtime, client(platform) as http:
        await _replay_all(runtime, http)
        await until(lambda: _has_applied(runtime, {"o-1": [1]}), "the replay is applied")
        await publish(runtime, letter)
        await until_settled(runtime, "orders")
        assert await _numbers(runtime, "orders") == {"o-1": [1]}
    async with running(platform, log) as runtime:
        await publish(runtime, letter)
        await until_settled(runtime, "orders")
        assert await _numbers(runtime, "orders") == {"o-1": [1]}
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 1


async def test_replay_of_an_event_whose_copy_was_applied_is_refused(database_url: str, topic_name: str) -> None:
    """The producer sent it again after the type was declared: the letter is open again, and says why."""
    log = MemoryLog()
    letter = record(topic_name, "order.paid", {"order": "o-1"}, key="o-1", id="paid-1")
    async with running(_of_types(database_url, topic_name, "order.placed"), log) as runtime:
        await publish(runtime, letter)
        await until_settled(runtime, "orders")
    platform = _of_types(database_url, topic_name, "order.placed", "order.paid")
    async with watched(platform, log) as runtime, client(platform) as http:
        await publish(runtime, letter)
        await until_settled(runtime, "orders")
        await _replay_all(runtime, http)
        await until(lambda: _is_open_since(runtime, "was taken at offset 1"), "the letter is open again")
        assert await _numbers(runtime, "orders") == {"o-1": [1]}


@pytest.mark.parametrize("at_once", [True, False])
async def test_two_dead_copies_of_an_event_are_replayed_once(database_url: str, topic_name: str, at_once: bool) -> None:
    """One after the other or together: one is applied, the other is open again with the reason."""
    log = MemoryLog()
    letter = record(topic_name, "order.paid", {"order": "o-1"}, key="o-1", id="paid-1")
    async with running(_of_types(database_url, topic_name, "order.placed"), log) as runtime:
        await publish(runtime, letter)
        await until_settled(runtime, "orders")
        await publish(runtime, letter)
        await until_settled(runtime, "orders")
        assert await _reasons(runtime) == ["unknown_type", "unknown_type"]
        if at_once:
            await execute(database_url, "update headrace.dead_letter set decision = 'replay', decided_at = now()")
    platform = _of_types(database_url, topic_name, "order.placed", "order.paid")
    async with watched(platform, log) as runtime, client(platform) as http:
        if not at_once:
            first, second = await _ids(runtime)
            await _replay(http, first)
            await until(lambda: _has_applied(runtime, {"o-1": [1]}), "the first is applied")
            await _replay(http, second)
        await until(lambda: _is_open_since(runtime, "was taken at offset"), "one letter is open again")
        await until_settled(runtime, "orders")
        assert await _numbers(runtime, "orders") == {"o-1": [1]}
        assert await value(runtime, "select count(*) from headrace.dead_letter where settled_at is not null") == 1


@pytest.mark.parametrize("change", ["select 1", "update headrace.ledger set marks = null"])
async def test_an_event_that_was_given_up_can_be_replayed(database_url: str, topic_name: str, change: str) -> None:
    """The dedupe window knows it, since it was parked; also if the row is from before rows had marks."""
    log, is_failing = MemoryLog(), True

    def before(event: Any) -> None:
        if is_failing:
            raise ValueError("not yet")

    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1), topic_name, before)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1, id="one"))
        await until_settled(runtime, "notes")
        assert await _reasons(runtime) == ["gave_up"]
    await execute(database_url, change)
    is_failing = False
    async with watched(platform, log) as runtime, client(platform) as http:
        await _replay_all(runtime, http)
        await until(lambda: has_pages(runtime, {"a": [1]}), "the replay is applied")
        await publish(runtime, noted(topic_name, "a", 1, id="one"))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def test_conflicts_are_counted_and_logged_with_positions(
    database_url: str, topic_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another payload under a known id: in one batch, in a later one, and after a restart."""
    caplog.set_level(logging.INFO, "headrace")
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, log) as runtime:  # creates the topic
        pass
    await log.publish([noted(topic_name, "a", 1, id="one"), noted(topic_name, "a", 2, id="one")])
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert sample(runtime, "events_conflict_total", subscription="notes", topic=topic_name) == 1
        assert sample(runtime, "events_skipped_total", reason="conflicting_id") == 1
    assert _conflicts(caplog) == [("one", 0, 1)]
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 3, id="two"))
        await until_settled(runtime, "notes")
        await publish(runtime, noted(topic_name, "b", 4, id="two"), noted(topic_name, "a", 3, id="two"))
        await until_settled(runtime, "notes")
        assert sample(runtime, "events_conflict_total") == 1
        assert sample(runtime, "events_skipped_total", reason="duplicate_id") == 1
    assert _conflicts(caplog)[1:] == [("two", 2, 3)]
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 5, id="two"))
        await until_settled(runtime, "notes")
        assert sample(runtime, "events_conflict_total") == 1
        assert await pages(runtime) == {"a": [1, 3]}
    assert _conflicts(caplog)[2:] == [("two", 2, 5)]


async def test_services_in_one_database_share_no_subscription(database_url: str, topic_name: str) -> None:
    """Two services call a subscription alike and read one topic: each has its own claims, states and dead letters."""
    log = MemoryLog()
    first = _of_types(database_url, topic_name, "order.placed", "order.paid", service="shop")
    second = _of_types(database_url, topic_name, "order.placed", service="bank")
    async with running(first, log) as one, running(second, log) as two:
        placed = [record(topic_name, "order.placed", {"order": "o-1"}, key="o-1") for _ in range(3)]
        await publish(one, *placed, record(topic_name, "order.paid", {"order": "o-1"}, key="o-1"))
        await until_settled(one, "orders")
        await until_settled(two, "orders")
        assert await _numbers(one, "orders") == {"o-1": [1, 1, 1, 1]}
        assert await _numbers(two, "orders") == {"o-1": [1, 1, 1]}
        rows = await fetch(one, "select subscription, max(epoch) as epoch from headrace.claim group by subscription")
        assert {tuple(row) for row in rows} == {("shop.orders", 1), ("bank.orders", 1)}
        letters = await fetch(one, "select subscription, reason from headrace.dead_letter")
        assert [tuple(row) for row in letters] == [("bank.orders", "unknown_type")]
        async with client(first) as http:
            assert (await http.post("/subscriptions/orders/pause")).status_code < 300
        paused = await fetch(one, "select subscription from headrace.subscription where paused")
        assert [tuple(row) for row in paused] == [("shop.orders",)]


def _of_types(database_url: str, topic: str, *types: str, service: str = "shop") -> Headrace:
    """Return a service that counts the events of the types, by order."""
    platform = Headrace(service, settings_for(database_url, partitions=1))
    orders = platform.subscription("orders")
    for type in types:

        class Happened(Event, type=type, topic=topic, key="order"):
            order: str

        def count(event: Any, kept: State[Notes]) -> None:
            kept.numbers.append(1)

        count.__annotations__["event"] = Happened
        orders.on(Happened)(count)
    return platform


def _placed(topic: str, order: str, id: str) -> Any:
    return record(topic, "order.placed", {"order": order}, key=order, id=id)


def _paid(topic: str, order: str, id: str) -> Any:
    return record(f"{topic}-paid", "order.paid", {"order": order}, key=order, id=id)


def _conflicts(caplog: pytest.LogCaptureFixture) -> Marks:
    found = [
        getattr(each, FIELDS) for each in caplog.records if each.getMessage().startswith("two events have the same")
    ]
    return [(each["event_id"], each["first_offset"], each["second_offset"]) for each in found]


async def _numbers(runtime: Runtime, subscription: str) -> dict[str, list[int]]:
    return {key: kept["numbers"] for key, kept in (await states(runtime, subscription, "notes")).items()}


async def _has_applied(runtime: Runtime, expected: dict[str, list[int]]) -> bool:
    return await _numbers(runtime, "orders") == expected


async def _reasons(runtime: Runtime) -> list[str]:
    return [row["reason"] for row in await fetch(runtime, "select reason from headrace.dead_letter")]


async def _ids(runtime: Runtime) -> list[str]:
    return [str(row["id"]) for row in await fetch(runtime, 'select id from headrace.dead_letter order by "offset"')]


async def _replay(http: Any, letter: str) -> None:
    answer = await http.post(f"/dead-letters/{letter}/replay")
    assert answer.status_code < 300, answer.text


async def _replay_all(runtime: Runtime, http: Any) -> None:
    for letter in await _ids(runtime):
        await _replay(http, letter)


async def _is_open_since(runtime: Runtime, reason: str) -> bool:
    rows = await fetch(runtime, "select error from headrace.dead_letter where decision is null and settled_at is null")
    return any(reason in row["error"] for row in rows)
