"""A lane runs beside the batches of its partition: whatever its handler does holds up that key only.

No handler here comes to its time limit, a minute: what is held is let go by the test.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from headrace import Headrace
from headrace.engine import takeover
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.obstacles import die
from tests.support.platform import (
    QUICK,
    client,
    execute,
    fetch,
    has_pages,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    spread,
    until_settled,
    value,
)
from tests.support.services import KINDS, echoing, entered, noted_numbers
from tests.support.waiting import until

PACE = QUICK._replace(patience=0.1)
WAITS: dict[str, Any] = {
    "handler_seconds": 60.0,
    "batch_seconds": 60.0,
    "stuck_seconds": 60.0,
    "retry_attempts": 1_000,
    "drain_seconds": 5.0,
}


class Keeper:
    """Holds the handlers of some pages until they are let go, and raises for others; `began` tells what ran."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.broken: set[str] = set()
        self.began: list[tuple[str, int]] = []
        self._let_go = threading.Condition()

    def enter(self, event: Any) -> None:
        """Act as a plain handler does."""
        self._begin(event)
        with self._let_go:
            assert self._let_go.wait_for(lambda: event.page not in self.held, 60)

    async def enter_async(self, event: Any) -> None:
        """Act as an async handler does."""
        self._begin(event)
        await until(lambda: event.page not in self.held, "it is let go", 60)

    def _begin(self, event: Any) -> None:
        self.began.append((event.page, event.number))
        if event.page in self.broken:
            raise ValueError("broken")

    def let_go(self) -> None:
        """Hold nothing any more."""
        with self._let_go:
            self.held.clear()
            self._let_go.notify_all()


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    """A keeper that holds nothing when the test is over."""
    made = Keeper()
    yield made
    made.let_go()


def _service(settings: Settings, topic: str, keeper: Keeper, kind: str) -> Headrace:
    return entered(settings, topic, kind, keeper.enter, keeper.enter_async)


@pytest.mark.parametrize("kind", KINDS)
async def test_event_that_had_failed_waits_for_none_behind_it(
    database_url: str, topic_name: str, keeper: Keeper, kind: str
) -> None:
    """It is committed before the next event of its key runs, whose end would else be held against it."""
    keeper.held, keeper.broken = {"a"}, {"a"}

    def enter(event: Any) -> None:
        keeper.enter(event) if event.number == 2 else keeper._begin(event)

    async def enter_async(event: Any) -> None:
        await keeper.enter_async(event) if event.number == 2 else keeper._begin(event)

    platform = entered(settings_for(database_url, partitions=1, **WAITS), topic_name, kind, enter, enter_async)
    async with running(platform, MemoryLog(), pace=PACE) as runtime:
        await publish(runtime, *spread(topic_name, ["a"], 2))
        await until(lambda: value(runtime, "select count(*) = 2 from headrace.parked"), "both are parked")
        keeper.broken.clear()
        await until(lambda: has_pages(runtime, {"a": [1]}), "the first one is applied")
        await until(lambda: ("a", 2) in keeper.began, "the second one runs")
        keeper.let_go()
        await until(lambda: has_pages(runtime, {"a": [1, 2]}), "both are applied")


@pytest.mark.parametrize("kind", KINDS)
async def test_key_that_hangs_delays_that_key_only(
    database_url: str, topic_name: str, keeper: Keeper, kind: str
) -> None:
    """Neither a batch waits for it, nor another lane, and no attempt is used up: it has not come to its limit."""
    keeper.held, keeper.broken = {"held"}, {"broken"}
    settings = settings_for(database_url, partitions=1, **WAITS)
    async with running(_service(settings, topic_name, keeper, kind), MemoryLog(), pace=PACE) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "held", "broken", "b"], 2))
        await until(lambda: has_pages(runtime, {"a": [1, 2], "b": [1, 2]}), "the others are applied")
        await until(lambda: keeper.began.count(("held", 1)) == 2, "it runs in its lane")
        await publish(runtime, *(noted(topic_name, page, 3) for page in ("a", "held", "b")))
        await until(lambda: has_pages(runtime, {"a": [1, 2, 3], "b": [1, 2, 3]}), "the others flow on")
        keeper.broken.clear()
        await until(lambda: has_pages(runtime, {"broken": [1, 2]}), "the other lane is retried")
        assert keeper.began.count(("held", 1)) == 2, "once in its batch, once in its lane"
        lanes = await fetch(runtime, "select key, attempts from headrace.lane")
        assert [tuple(lane) for lane in lanes] == [(b"held", 1)]
        reasons = await fetch(runtime, "select reason from headrace.parked order by number")
        assert [row["reason"] for row in reasons] == ["slow", "behind_key", "behind_key"]
        keeper.let_go()
        await until_settled(runtime, "notes")
        assert (await pages(runtime))["held"] == [1, 2, 3]
        assert sample(runtime, "worker_abandoned_total") == 0


async def test_many_keys_that_hang_delay_nobody_else(database_url: str, topic_name: str, keeper: Keeper) -> None:
    """More than a batch gives up on in a row, and more than run at a time."""
    names = [f"held-{number}" for number in range(30)]
    keeper.held = {*names}
    settings = settings_for(database_url, partitions=1, **WAITS)
    async with running(_service(settings, topic_name, keeper, "async"), MemoryLog(), pace=PACE) as runtime:
        for number, name in enumerate(names):
            healthy = [noted(topic_name, f"a-{each}", number) for each in range(110)]
            await publish(runtime, *healthy, noted(topic_name, name, 1))
        expected = {f"a-{each}": list(range(30)) for each in range(110)}
        await until(lambda: has_pages(runtime, expected), "the others are applied")
        keeper.let_go()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == expected | {name: [1] for name in names}


async def test_slow_lanes_take_no_thread_from_other_lanes(database_url: str, topic_name: str, keeper: Keeper) -> None:
    """There are fewer threads than keys whose events take long."""
    names = [f"held-{number}" for number in range(5)]
    keeper.held, keeper.broken = {*names}, {"a", "b"}
    settings = settings_for(database_url, partitions=1, handler_threads=2, **WAITS)
    async with running(_service(settings, topic_name, keeper, "sync"), MemoryLog(), pace=PACE) as runtime:
        await publish(runtime, *spread(topic_name, [*names, "a", "b"], 1))
        await until(lambda: len(keeper.began) > 9 and keeper.began.count((names[1], 1)) == 2, "two run in their lanes")
        keeper.broken.clear()
        await until(lambda: has_pages(runtime, {"a": [1], "b": [1]}), "the others are applied")
        keeper.let_go()
        await until_settled(runtime, "notes")


async def test_lanes_that_hang_leave_other_lanes_their_turn(database_url: str, topic_name: str, keeper: Keeper) -> None:
    """More than a batch gives up on in a row: each runs alone from then on, and the others go on without it."""
    names = [f"held-{number}" for number in range(30)]
    keeper.broken = {*names, "a", "b"}
    waits: dict[str, Any] = WAITS | {"retry_first_seconds": 600.0, "retry_max_seconds": 600.0, "outage_keys": 0}
    platform = _service(settings_for(database_url, partitions=1, **waits), topic_name, keeper, "async")
    async with running(platform, MemoryLog(), pace=PACE) as runtime, client(platform) as http:
        await publish(runtime, *spread(topic_name, ["a", *names, "b"], 1))
        await until(lambda: value(runtime, "select count(*) = 32 from headrace.lane"), "all are parked")
        keeper.held = {*names}
        keeper.broken.clear()
        await http.post("/subscriptions/notes/lanes/retry")
        await until(lambda: has_pages(runtime, {"a": [1], "b": [1]}), "the others are applied")
        keeper.let_go()
        await until_settled(runtime, "notes")


async def test_key_that_took_long_is_not_tried_in_a_batch_again(
    database_url: str, topic_name: str, keeper: Keeper
) -> None:
    """Until one of its events is quick: so a batch waits for it once, and not for each of its events."""
    keeper.held = {"held"}
    settings = settings_for(database_url, partitions=1, **(WAITS | {"handler_seconds": 0.3, "retry_attempts": 1}))
    async with running(_service(settings, topic_name, keeper, "sync"), MemoryLog(), pace=PACE) as runtime:
        for number in (1, 2):
            await publish(runtime, noted(topic_name, "held", number))
            await until(lambda: value(runtime, "select count(*) from headrace.dead_letter"), "it is given up on")
            await until_settled(runtime, "notes")
        assert keeper.began == [("held", 1), ("held", 1), ("held", 2)]
        keeper.let_go()
        for number in (3, 4):
            await publish(runtime, noted(topic_name, "held", number))
            await until_settled(runtime, "notes")
        rows = await fetch(runtime, "select kind, applied, parked from headrace.ledger order by sequence desc limit 3")
        assert [tuple(row) for row in rows] == [(0, 1, 0), (1, 1, 0), (0, 0, 1)], "3 in its lane, 4 in a batch"


async def test_lane_that_ends_during_a_batch_is_not_overtaken(
    database_url: str, topic_name: str, keeper: Keeper
) -> None:
    """The batch has held two events of the key back, and the lane is empty before the batch is over."""
    keeper.held, keeper.broken = {"held"}, {"a"}
    settings = settings_for(database_url, partitions=1, **WAITS)
    pace = PACE._replace(patience=60.0)
    async with running(_service(settings, topic_name, keeper, "sync"), MemoryLog(), pace=pace) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: value(runtime, "select count(*) = 1 from headrace.lane"), "it is parked")
        await publish(runtime, *spread(topic_name, ["held", "a"], 2))
        await until(lambda: ("held", 1) in keeper.began, "the batch hangs")
        keeper.broken.clear()
        await until(lambda: has_pages(runtime, {"a": [1]}), "the lane is applied meanwhile")
        await until(lambda: value(runtime, "select count(*) = 0 from headrace.lane"), "and has gone")
        keeper.let_go()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 1, 2], "held": [1, 2]}
        await publish(runtime, noted(topic_name, "a", 3))
        await until_settled(runtime, "notes")
        assert (await pages(runtime))["a"] == [1, 1, 2, 3], "the batches know what the lane has made of the state"


@pytest.mark.parametrize("kind", KINDS)
async def test_stop_leaves_a_hanging_lane_as_it_was(
    database_url: str, topic_name: str, keeper: Keeper, kind: str
) -> None:
    """It is clean, and the next owner runs the event as the same attempt."""
    keeper.held, log = {"held"}, MemoryLog()
    platform = _service(settings_for(database_url, partitions=1, **WAITS), topic_name, keeper, kind)
    async with running(platform, log, pace=PACE) as runtime:
        await publish(runtime, *spread(topic_name, ["held", "a"], 2))
        await until(lambda: keeper.began.count(("held", 1)) == 2, "it runs in its lane")
        assert await asyncio.wait_for(runtime.consumers["notes"].stop(5.0), 10)
        assert await value(runtime, "select owner from headrace.claim") is None
    async with running(platform, log, pace=PACE) as runtime:
        await until(lambda: keeper.began.count(("held", 1)) == 3, "the next owner runs it")
        assert await value(runtime, "select attempts from headrace.lane") == 1
        keeper.let_go()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"held": [1, 2], "a": [1, 2]}


async def test_lanes_rest_while_their_subscription_is_paused(
    database_url: str, topic_name: str, keeper: Keeper
) -> None:
    keeper.broken = {"a"}
    settings = settings_for(database_url, partitions=1, **WAITS)
    async with running(_service(settings, topic_name, keeper, "sync"), MemoryLog(), pace=PACE) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: len(keeper.began) >= 4, "it is retried")
        await execute(
            database_url, "insert into headrace.subscription (subscription, paused) values ('notebook.notes', true)"
        )
        (worker,) = runtime.consumers["notes"].workers.values()
        await until(lambda: worker.orders.is_paused and worker.tenure and not worker.tenure.running, "it is paused")
        keeper.broken.clear()
        runs = len(keeper.began)
        overdue = "select bool_and(due_at < now() - interval '1 s') from headrace.lane"
        await until(lambda: value(runtime, overdue), "it has been due for a second")
        assert len(keeper.began) <= runs + 1, "a run that had begun"
        await execute(database_url, "update headrace.subscription set paused = false")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def test_hanging_transactions_of_lanes_leave_connections(
    database_url: str, topic_name: str, keeper: Keeper
) -> None:
    """Six of them are more than the pool has: one of four connections is theirs."""
    names = [f"held-{number}" for number in range(6)]
    keeper.held = {*names}
    settings = settings_for(database_url, partitions=1, pool_size=4, **WAITS)
    async with running(_service(settings, topic_name, keeper, "transaction"), MemoryLog(), pace=PACE) as runtime:
        await publish(runtime, *spread(topic_name, names, 1))
        await until(lambda: value(runtime, "select count(*) = 6 from headrace.lane"), "each is parked")
        await publish(runtime, *spread(topic_name, ["a", "b"], 3))
        await until(lambda: has_pages(runtime, {"a": [1, 2, 3], "b": [1, 2, 3]}), "the others are applied")
        (worker,) = runtime.consumers["notes"].workers.values()
        assert worker.tenure is not None and len(worker.tenure.running) == 1
        keeper.let_go()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2, 3], "b": [1, 2, 3]} | {name: [1] for name in names}


async def test_owner_of_a_lost_claim_ends_also_if_only_lanes_run(
    database_url: str, topic_name: str, keeper: Keeper
) -> None:
    """No event of the log tells it that another owner has claimed."""
    keeper.broken = {"a"}
    settings = settings_for(database_url, partitions=1, **WAITS)
    pace = PACE._replace(watch=60.0)
    async with running(_service(settings, topic_name, keeper, "sync"), MemoryLog(), pace=pace) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: len(keeper.began) >= 4, "it is retried")
        await execute(database_url, "update headrace.claim set epoch = epoch + 1, token = gen_random_uuid()")
        await until(lambda: sample(runtime, "claim_fenced_total") == 1, "it is fenced")
        keeper.broken.clear()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def test_events_of_lanes_and_batches_count_once_each(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that fail now and then, owners that die: order, states, emits and ledger are those of one owner's."""
    monkeypatch.setattr(takeover, "CAUTIOUS_SECONDS", 0.0)
    runs: dict[tuple[str, int], int] = {}
    log, names = MemoryLog(), [f"page-{number}" for number in range(8)]

    def fail(event: Any) -> None:
        place = (event.page, event.number)
        runs[place] = runs.get(place, 0) + 1
        if event.page in names[:3] and event.number % 5 == 0 and runs[place] < 4:
            raise ValueError("not yet")

    platform = echoing(settings_for(database_url, partitions=1, outage_keys=0, **WAITS), topic_name, fail, "sync")
    for number in range(5):
        async with running(platform, log, pace=PACE) as runtime:
            first = number * 10
            await publish(runtime, *(noted(topic_name, page, first + each) for each in range(10) for page in names))
            if number < 4:
                await until(lambda: len(runs) >= first * len(names) // 2 + 20, "some have run")  # noqa: B023
                await die(runtime)
                continue
            await until_settled(runtime, "notes", "echoes", seconds=60)
            await _check(runtime, names)


async def _check(runtime: Runtime, names: list[str]) -> None:
    assert await noted_numbers(runtime) == {page: list(range(50)) for page in names}
    assert sorted((await noted_numbers(runtime, "echoes"))["all"]) == sorted(list(range(50)) * len(names))
    gaps = (
        "select count(*) from (select first_offset - lag(next_offset) over (order by sequence) as gap, "
        "sequence - lag(sequence) over (order by sequence) as step from headrace.ledger "
        "where subscription = 'notebook.notes') as rows where gap <> 0 or step <> 1"
    )
    assert await value(runtime, gaps) == 0
