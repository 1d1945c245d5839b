"""The relay: one event that the log refuses parks alone, an outage delays its own partition only, work is shared."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from headrace import Event, Headrace
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.outbox import relay
from headrace.outbox.rows import SLOTS, slot_of
from headrace.runtime import Runtime
from tests.support.orders import Placed, begin_beside, books, order_service
from tests.support.platform import client, fetch, running, sample, settings_for, value
from tests.support.refusing_logs import Moody
from tests.support.waiting import until

HERE, ELSEWHERE = "ada", next(f"c{n}" for n in range(99) if partition_for(b"ada", 3) != partition_for(b"c%d" % n, 3))
"""Customers of two partitions."""

BEHIND = next(
    name
    for name in (f"c{n}" for n in range(999))
    if slot_of(name.encode()) == slot_of(HERE.encode()) and partition_for(name.encode(), 3) != partition_for(b"ada", 3)
)
"""Of the slot of HERE, and of another partition."""


class Parcel(Event, type="parcel", topic="parcels", key="customer"):
    customer: str


async def emit(platform: Headrace, customer: str, *numbers: int) -> None:
    async with platform.transaction() as tx:
        for number in numbers:
            tx.emit(Placed(customer=customer, number=number))


async def until_arrived(runtime: Runtime, expected: dict[str, list[int]]) -> None:
    async def is_so() -> bool:
        return await books(runtime) == expected

    await until(is_so, f"{expected} has arrived")


async def waiting(runtime: Runtime) -> int:
    return int(await value(runtime, "select count(*) from headrace.outbox"))


async def test_an_event_that_the_log_refuses_parks_alone(database_url: str) -> None:
    platform, log = order_service(settings_for(database_url)), Moody()
    log.too_large = {3, 6}
    async with running(platform, log) as runtime:
        await emit(platform, HERE, *range(8))
        await until_arrived(runtime, {HERE: [0, 1, 2, 4, 5, 7]})
        async with client(platform) as http:
            query = {"subscription": "outbox"}
            letters = (await http.get("/dead-letters", params=query)).json()["dead_letters"]
            assert {letter["reason"] for letter in letters} == {"emit_refused"}
            assert len(letters) == 2
            log.too_large = {6}
            for letter in letters:
                assert (await http.post(f"/dead-letters/{letter['id']}/replay")).status_code < 300
            await until_arrived(runtime, {HERE: [0, 1, 2, 4, 5, 7, 3]})

            async def is_back() -> bool:
                found = (await http.get("/dead-letters", params={**query, "open": "true"})).json()["dead_letters"]
                return len(found) == 1

            await until(is_back, "what is still too large is a dead letter again")
        assert sample(runtime, "outbox_refused_total", topic="orders") == 3


async def test_edit_of_a_refused_event_is_what_is_published(database_url: str) -> None:
    platform, log = order_service(settings_for(database_url)), Moody()
    log.too_large = {3}
    async with running(platform, log) as runtime, client(platform) as http:
        await emit(platform, HERE, 1, 3)
        await until(lambda: sample(runtime, "outbox_refused_total", topic="orders") == 1, "it is a dead letter")
        (letter,) = (await http.get("/dead-letters", params={"subscription": "outbox"})).json()["dead_letters"]
        log.too_large = {30}

        async def mend(identity: str, number: int) -> None:
            edit = {"data": {"customer": HERE, "number": number}}
            for verb, body in (("edit", edit), ("replay", {})):
                answer = await http.post(f"/dead-letters/{identity}/{verb}", json=body)
                assert answer.status_code == 200, answer.text

        await mend(letter["id"], 30)
        await until(lambda: sample(runtime, "outbox_refused_total", topic="orders") == 2, "the edit is refused as well")
        (again,) = (await http.get("/dead-letters", params={"subscription": "outbox"})).json()["dead_letters"]
        shown = (await http.get(f"/dead-letters/{again['id']}")).json()
        assert (again["edited"], [done["did"] for done in shown["history"]]) == (True, ["edit", "replay"])
        assert '"number":3}' in shown["value"] and '"number":30' in shown["edited_value"]
        await mend(again["id"], 31)
        await until_arrived(runtime, {HERE: [1, 31]})


async def test_a_partition_that_is_away_delays_its_own_events_only(database_url: str) -> None:
    platform, log = order_service(settings_for(database_url)), Moody()
    log.away = partition_for(HERE.encode(), 3)
    async with running(platform, log) as runtime:
        for first in (0, 600):  # more than one pass reads
            await emit(platform, HERE, *range(first, first + 600))
        for number in range(3):
            await emit(platform, ELSEWHERE, number)
        await until_arrived(runtime, {ELSEWHERE: [0, 1, 2]})
        assert await waiting(runtime) == 1_200
        await emit(platform, HERE, 1_200)
        log.away = None
        await until_arrived(runtime, {HERE: list(range(1_201)), ELSEWHERE: [0, 1, 2]})


async def test_events_leave_from_behind_any_number_of_others(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of another partition, and those of a topic that nobody has met yet."""
    monkeypatch.setattr(relay, "PASS_ROWS", 10)
    monkeypatch.setattr(relay, "LOOK_ROWS", 10)
    platform, log = order_service(settings_for(database_url)), Moody()
    platform.declare(Parcel)
    log.away = partition_for(HERE.encode(), 3)
    async with running(platform, log) as runtime:
        await emit(platform, HERE, *range(400))
        await emit(platform, BEHIND, *range(25))
        async with platform.transaction() as tx:
            tx.emit(Parcel(customer=BEHIND))
        await until_arrived(runtime, {BEHIND: list(range(25))})

        async def are_alone() -> bool:
            return await waiting(runtime) == 400

        await until(are_alone, "nothing else waits")
        log.away = None
        await until_arrived(runtime, {BEHIND: list(range(25)), HERE: list(range(400))})


async def test_what_was_committed_without_a_word_is_found(database_url: str) -> None:
    """A process that dies between its commit and the wake leaves a row that nobody was told of."""
    platform = order_service(settings_for(database_url))
    async with running(platform, MemoryLog()) as runtime:
        platform.runtime = None  # so that nothing is woken
        connection = await asyncpg.connect(database_url)
        async with platform.transaction(connection) as tx:
            tx.emit(Placed(customer=HERE, number=1))
        await connection.close()
        await until_arrived(runtime, {HERE: [1]})


async def test_the_relay_comes_back_after_its_session_was_ended(database_url: str) -> None:
    platform = order_service(settings_for(database_url))
    async with running(platform, MemoryLog()) as runtime:
        await until(lambda: runtime.outbox is not None and len(runtime.outbox.owned) == SLOTS, "it has all slots")
        await fetch(runtime, "select pg_terminate_backend(pid, 5000) from pg_locks where objid = 4294967295")
        await emit(platform, HERE, 1, 2)
        await until_arrived(runtime, {HERE: [1, 2]})


async def test_two_processes_share_the_slots_and_tell_each_other(database_url: str) -> None:
    """Each publishes its half; when one leaves, the other one takes what it had."""
    log = MemoryLog()
    first = order_service(settings_for(database_url))
    async with running(first, log) as runtime:
        one = runtime.outbox
        assert one is not None
        await until(lambda: len(one.owned) == SLOTS, "the first one has all slots")
        second, other = await begin_beside(settings_for(database_url), log)
        two = other.outbox
        assert two is not None
        await until(lambda: (len(one.owned), len(two.owned)) == (SLOTS // 2, SLOTS // 2), "each has half of them")
        assert not one.owned & two.owned
        customers = [f"customer-{number}" for number in range(40)]
        for number in range(3):
            for customer in customers:
                await emit(first if number % 2 else second, customer, number)
        await until_arrived(runtime, {customer: [0, 1, 2] for customer in customers})
        assert sample(runtime, "outbox_published_total") > 0
        assert sample(other, "outbox_published_total") > 0
        await other.stop()
        await until(lambda: len(one.owned) == SLOTS, "the first one has all slots again")


async def test_a_stop_publishes_what_is_committed(database_url: str) -> None:
    platform, log = order_service(settings_for(database_url)), Moody()
    log.hangs = asyncio.Event()
    async with running(platform, log) as runtime:
        await emit(platform, HERE, 1)
        await until(lambda: runtime.outbox is not None and bool(runtime.outbox.owned), "the relay works")
        await emit(platform, HERE, 2)
        asyncio.get_running_loop().call_soon(log.hangs.set)
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from headrace.outbox") == 0
    await connection.close()
    assert sum(log.calls) == 2


async def test_waiting_events_are_counted(database_url: str) -> None:
    platform, log = order_service(settings_for(database_url)), Moody()
    connection = await asyncpg.connect(database_url)
    async with platform.transaction(connection) as tx:
        tx.emit(Placed(customer=HERE, number=1))
    await connection.close()
    log.hangs = asyncio.Event()
    async with running(platform, log) as runtime:
        await until(lambda: sample(runtime, "outbox_pending") == 1, "one event waits")
        assert sample(runtime, "outbox_oldest_pending_seconds") > 0
        log.hangs.set()
