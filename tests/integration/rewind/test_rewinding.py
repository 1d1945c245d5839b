"""A subscription goes back, and is afterwards as if it had come there just now; then it applies the rest again."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

from headrace import Emit, Event, Headrace, State, Step
from headrace.database.pool import connect
from headrace.handlers.verdicts import DeadLetter
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, TopicPartition
from headrace.rewind.plan import Target
from headrace.runtime import Runtime
from headrace.state.hand import Act, Place, change
from tests.integration.rewind.support import Counted, Counts, Sales, Sold, go_back, numbers, shop, sold
from tests.support.auditing import assert_promises_hold
from tests.support.kafka import KafkaServer
from tests.support.platform import (
    QUICK,
    execute,
    fetch,
    holdings,
    publish,
    record,
    running,
    settings_for,
    until_settled,
    value,
)
from tests.support.waiting import until


async def test_from_the_beginning_everything_is_applied_again(database_url: str) -> None:
    """What it emits again is known downstream by its first ids; who did it and why is kept."""
    factor = [1]
    platform = Headrace("shop", settings_for(database_url))

    @platform.subscription("sales").on(Sold)
    def note(event: Sold, kept: State[Sales]) -> Counted:
        kept.numbers.append(event.number * factor[0])
        return Counted(sku=event.sku, number=event.number)

    @platform.subscription("counts").on(Counted)
    def count(event: Counted, kept: State[Counts]) -> None:
        kept.numbers.append(event.number)

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(sold(sku, number) for number in range(1, 6) for sku in "abcd"))
        await until_settled(runtime, "sales", "counts")
        factor[0] = 10
        plan, done = await go_back(runtime, database_url)
        assert (plan.states, plan.events, plan.reads, plan.kept["states"]) == ("reset", 20, 0, 4)
        assert done.changed["states"] == 4 and not done.is_paused
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {sku: [10, 20, 30, 40, 50] for sku in "abcd"}
        assert await numbers(runtime, "counts") == {sku: [1, 2, 3, 4, 5] for sku in "abcd"}
        skipped = await value(runtime, "select sum(skipped) from headrace.ledger where subscription = 'shop.counts'")
        assert skipped in (20, 40)  # the new owner may publish once more what the old one had not marked
        rows = await fetch(runtime, "select action, from_offset, next_offset, by, why from headrace.claim_move")
        assert {tuple(row)[2:] for row in rows} == {(0, "ann", "a bug")} and {row["action"] for row in rows} == {
            "rewind"
        }
        assert sum(row["from_offset"] for row in rows) == 20
    await assert_promises_hold(database_url)


async def test_states_are_made_again_as_they_were_at_an_offset(database_url: str) -> None:
    """Only of keys that have later events; one that began later has none, and others stay untouched."""
    runs: list[tuple[str, int]] = []
    platform = shop(settings_for(database_url, partitions=1), lambda event: runs.append((event.sku, event.number)))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold("a", 1), sold("b", 1), sold("a", 2), sold("b", 2))
        await publish(runtime, sold("a", 3), sold("c", 1))
        await until_settled(runtime, "sales", "counts")
        await execute(database_url, "update headrace.state set data = '{\"numbers\": [7]}' where state = 'sales'")
        runs.clear()
        plan, done = await go_back(runtime, database_url, target=Target(offset=4, partition=0))
        assert (plan.states, plan.events, plan.reads, done.changed["keys"]) == ("remade", 2, 6, 2)
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2, 3], "b": [7], "c": [1]}
        assert sorted(runs) == [("a", 1), ("a", 2), ("a", 3), ("c", 1)]
        await publish(runtime, sold("a", 1), sold("a", 3), sold("a", 4))  # the window knows what was, and what came
        await until_settled(runtime, "sales", "counts")
        assert (await numbers(runtime))["a"] == [1, 2, 3, 4]
        assert await numbers(runtime, "counts") == {"a": [1, 2, 3, 4], "b": [1, 2], "c": [1]}
    await assert_promises_hold(database_url)


async def test_a_rewind_can_be_rewound(database_url: str) -> None:
    platform = shop(settings_for(database_url, partitions=1))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(sold("a", number) for number in range(1, 7)))
        await until_settled(runtime, "sales", "counts")
        for offset in (4, 2, 5, 0, 3):
            await go_back(runtime, database_url, target=Target(offset=offset, partition=0))
            await until_settled(runtime, "sales", "counts")
            assert await numbers(runtime) == {"a": [1, 2, 3, 4, 5, 6]}
        await publish(runtime, *(sold("a", number) for number in range(1, 8)))
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2, 3, 4, 5, 6, 7]}
        assert await numbers(runtime, "counts") == {"a": [1, 2, 3, 4, 5, 6, 7]}
    await assert_promises_hold(database_url)


async def test_a_time_is_found_in_each_partition(database_url: str) -> None:
    log = MemoryLog()
    platform = shop(settings_for(database_url))
    async with running(platform, log) as runtime:
        await publish(runtime, *(sold(sku, 1) for sku in "abcdef"))
        await until_settled(runtime, "sales", "counts")
        ends = await log.bounds([TopicPartition("sales", number) for number in range(3)])
        at = datetime.now(UTC) + timedelta(milliseconds=2)
        await until(lambda: datetime.now(UTC) > at, "the clock has moved on")
        await publish(runtime, *(sold(sku, 2) for sku in "abcdef"))
        await until_settled(runtime, "sales", "counts")
        plan, _ = await go_back(runtime, database_url, target=Target(at=at))
        assert {move.place: move.offset for move in plan.moves} == {place: each.end for place, each in ends.items()}
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {sku: [1, 2] for sku in "abcdef"}
    await assert_promises_hold(database_url)


async def test_a_batch_of_before_cannot_commit(database_url: str) -> None:
    """The worker holds the partition, and its handler is running while the claim is moved."""
    entered, opened = threading.Event(), threading.Event()

    def wait(event: Sold) -> None:
        if event.number == 3:
            entered.set()
            assert opened.wait(60)

    platform = shop(settings_for(database_url, partitions=1), wait)
    async with running(platform, MemoryLog(), pace=QUICK) as runtime:
        await publish(runtime, sold("a", 1), sold("a", 2))
        await until_settled(runtime, "sales", "counts")
        await publish(runtime, sold("a", 3))
        await until(entered.is_set, "the handler runs")
        before = holdings(runtime, "sales")[0].claim.epoch
        await go_back(runtime, database_url)
        opened.set()
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2, 3]}
        assert holdings(runtime, "sales")[0].claim.epoch > before
    await assert_promises_hold(database_url)


async def test_lanes_and_letters_of_later_events_are_read_again(database_url: str) -> None:
    """What waits from before the place goes on to wait; what a person has discarded stays out."""
    poison = {2, 4, 5, 7}

    def fail(event: Sold) -> None:
        if event.number in poison:
            if event.number in (4, 5):
                raise DeadLetter("no such number")
            raise ValueError("not yet")

    platform = shop(settings_for(database_url, partitions=1, retry_first_seconds=600, retry_max_seconds=600), fail)
    async with running(platform, MemoryLog()) as runtime:
        for sku, number in (("a", 1), ("b", 2), ("c", 3), ("c", 4), ("c", 5), ("a", 6), ("d", 7), ("d", 8), ("b", 9)):
            await publish(runtime, sold(sku, number))

        async def is_applied() -> bool:
            return bool(await value(runtime, "select next_offset = 9 from headrace.claim where topic = 'sales'"))

        await until(is_applied, "all is applied, parked or given up on")
        given_up = "select count(*) = 2 from headrace.dead_letter"
        await until(lambda: value(runtime, given_up), "what waited behind the first is given up on as well")
        await execute(
            database_url,
            "update headrace.dead_letter set decision = 'discard', decided_at = now() where \"offset\" = 4",
        )
        poison.clear()
        plan, done = await go_back(runtime, database_url, target=Target(offset=2, partition=0))
        assert dict(plan.kept) == {"parked": 3, "dead_letters": 1, "discarded": 1, "edited": 0}
        assert (done.changed["parked"], done.changed["dead_letters"]) == (3, 1)
        await until(is_applied, "all is applied again")
        waiting = await fetch(runtime, 'select key, "offset" from headrace.parked order by number')
        assert [tuple(row) for row in waiting] == [(b"b", 1), (b"b", 8)]
        assert await numbers(runtime) == {"a": [1, 6], "c": [3, 4], "d": [7, 8]}
        letters = await fetch(runtime, 'select "offset", decision from headrace.dead_letter order by "offset"')
        assert [tuple(row) for row in letters] == [(3, "rewind"), (4, "discard")]
        await execute(database_url, "update headrace.lane set due_at = now()")
        await execute(database_url, "update headrace.subscription set retry_requested_at = now()")
        await until_settled(runtime, "sales", "counts")
        assert (await numbers(runtime))["b"] == [2, 9]
    await assert_promises_hold(database_url)


async def test_discarded_record_without_an_identity_is_read_again(database_url: str) -> None:
    platform = shop(settings_for(database_url, partitions=1))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, NewRecord("sales", b"a", b"torn", []), sold("a", 1))
        await until_settled(runtime, "sales")
        await execute(database_url, "update headrace.dead_letter set decision = 'discard', decided_at = now()")
        plan, _ = await go_back(runtime, database_url)
        assert (plan.kept["dead_letters"], plan.kept["discarded"]) == (1, 0)
        await until_settled(runtime, "sales")
        letters = await fetch(runtime, "select event_id, decision from headrace.dead_letter order by created_at")
        assert [tuple(row) for row in letters] == [(None, "rewind"), (None, None)], "one decision, and one to be taken"


async def test_effects_do_not_fire_again_unless_asked(database_url: str) -> None:
    """But that of an event which never was applied does: it was given up on, or waited behind another."""

    class Returned(Event, type="returned", topic="sales", key="sku"):
        sku: str

    calls: list[str] = []
    platform = Headrace(
        "shop", settings_for(database_url, partitions=1, retry_first_seconds=600, retry_max_seconds=600)
    )
    is_broken = [True]
    mails = platform.subscription("mails")

    @mails.on(Returned)
    def take_back(event: Returned) -> None:
        if is_broken[0]:
            raise ValueError("not yet")

    @mails.effect(Sold, attempts=1)
    async def mail(event: Sold, step: Step) -> None:
        if event.number == 2 and is_broken[0]:
            raise ValueError("no such address")
        calls.append(f"{event.sku}-{event.number}")

    async def are_called(*names: str) -> bool:
        applied = await value(runtime, "select next_offset from headrace.claim")
        waits = await value(runtime, "select count(*) from headrace.effect")
        return sorted(calls) == sorted(names) and (waits, applied) == (0, published)

    async with running(platform, MemoryLog()) as runtime:
        published = 5
        returned = record("sales", "returned", {"sku": "e"}, key="e")
        await publish(runtime, sold("a", 1), sold("b", 2), sold("c", 3), returned, sold("e", 5))
        await until(lambda: are_called("a-1", "c-3"), "two mails are out")
        await until(lambda: value(runtime, "select count(*) from headrace.dead_letter"), "the third is given up on")
        is_broken[0] = False
        calls.clear()
        await go_back(runtime, database_url, "mails")
        await publish(runtime, sold("d", 4))
        published = 6
        await until(lambda: are_called("b-2", "d-4", "e-5"), "only what never was called is called")
        calls.clear()
        await go_back(runtime, database_url, "mails", effects=True)
        await until(lambda: are_called("a-1", "b-2", "c-3", "d-4", "e-5"), "all are called again")
    await assert_promises_hold(database_url)


async def test_timers_are_those_of_then(database_url: str) -> None:
    """One that was cancelled behind the place waits again, one that was set there does not."""

    class Due(Event, type="due", topic="dues", key="sku"):
        sku: str

    platform = Headrace("shop", settings_for(database_url, partitions=1))
    platform.declare(Due)

    @platform.subscription("sales").on(Sold)
    def note(event: Sold, kept: State[Sales], emit: Emit) -> None:
        kept.numbers.append(event.number)
        if event.number < 3:
            emit(Due(sku=event.sku), after=3_600, name=f"due {event.number}")
        elif not is_mended[0]:
            emit.cancel(Due, event.sku)

    async def timers() -> list[tuple[str, str]]:
        return [
            tuple(row) for row in await fetch(runtime, "select convert_from(key, 'utf8'), name from headrace.timer")
        ]

    is_mended = [False]
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold("a", 1), sold("b", 1), sold("a", 3), sold("b", 2), sold("c", 1))
        await until_settled(runtime, "sales")
        assert sorted(await timers()) == [("b", "due 1"), ("b", "due 2"), ("c", "due 1")]
        due_at = await value(runtime, "select due_at from headrace.timer where name = 'due 1' and key = 'b'")
        await execute(database_url, "update headrace.subscription set paused = true")
        is_mended[0] = True
        await execute(database_url, "insert into headrace.subscription values ('shop.sales', true)")
        _, done = await go_back(runtime, database_url, target=Target(offset=2, partition=0))
        assert done.is_paused
        assert sorted(await timers()) == [("a", "due 1"), ("b", "due 1")]
        assert due_at == await value(runtime, "select due_at from headrace.timer where name = 'due 1' and key = 'b'")
        await execute(database_url, "update headrace.subscription set paused = false")
        await until_settled(runtime, "sales")
        assert sorted(await timers()) == [("a", "due 1"), ("b", "due 1"), ("b", "due 2"), ("c", "due 1")]
    await assert_promises_hold(database_url)


async def test_a_change_by_hand_is_told_and_lost(database_url: str) -> None:
    platform = shop(settings_for(database_url, partitions=1))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold("a", 1), sold("a", 2))
        await until_settled(runtime, "sales", "counts")
        connection = await connect(database_url)
        await change(connection, Place("shop.sales", "sales", "a"), '{"numbers": [9]}', Act("ann", None))
        await connection.close()
        plan, _ = await go_back(runtime, database_url, target=Target(offset=1, partition=0))
        assert plan.changed_by_hand == 1
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2]}
    await assert_promises_hold(database_url)


async def test_on_kafka_two_processes_share_what_is_applied_again(
    database_url: str, kafka: KafkaServer, topic_name: str
) -> None:
    """Each partition goes back on its own, while both work; the group's offsets follow."""
    settings = settings_for(database_url, kafka.url, partitions=4)

    def service() -> Headrace:
        platform = Headrace(f"s-{topic_name[-8:]}", settings)

        class Noted(Event, type="noted", topic=topic_name, key="sku"):
            sku: str
            number: int

        @platform.subscription("sales").on(Noted)
        def note(event: Noted, kept: State[Sales]) -> None:
            kept.numbers.append(event.number)

        return platform

    def noted(sku: str, number: int) -> NewRecord:
        return record(topic_name, "noted", {"sku": sku, "number": number}, key=sku, id=f"{sku}-{number}")

    skus = [f"sku-{number}" for number in range(20)]
    async with running(service()) as runtime, running(service(), pace=QUICK) as other:
        await publish(runtime, *(noted(sku, number) for number in range(1, 11) for sku in skus))
        await until(lambda: has_all(runtime, skus, 10), "all is applied")
        claims = await fetch(runtime, "select partition, next_offset from headrace.claim")
        half = {row["partition"]: row["next_offset"] // 2 for row in claims}
        name = runtime.registry.subscriptions["sales"].group
        await execute(database_url, f"insert into headrace.subscription values ('{name}', true)")
        for partition, offset in half.items():
            await go_back(runtime, database_url, target=Target(offset=offset, partition=partition))

        async def has_followed() -> bool:
            return await asyncio.to_thread(committed, kafka.bootstrap, name, topic_name, list(half)) == half

        await until(has_followed, "the group's offsets have gone back as well")
        await execute(database_url, "update headrace.subscription set paused = false")
        await publish(other, *(noted(sku, 11) for sku in skus))
        await until(lambda: has_all(runtime, skus, 11), "all is applied again")
    await assert_promises_hold(database_url)


def committed(bootstrap: str, group: str, topic: str, numbers: list[int]) -> dict[int, int]:
    """Return the offsets of a consumer group, as lag tools see them."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        asked = [KafkaPartition(topic, number) for number in numbers]
        return {each.partition: each.offset for each in consumer.committed(asked, timeout=10)}
    finally:
        consumer.close()


async def has_all(runtime: Runtime, skus: list[str], last: int) -> bool:
    return await numbers(runtime) == {sku: list(range(1, last + 1)) for sku in skus}
