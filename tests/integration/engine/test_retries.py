"""Parked events are run again in order, counted before they run, and only by the owner of the claim."""

from __future__ import annotations

import threading
from typing import Any

import asyncpg
import pytest

from headrace import Event, Headrace, State
from headrace.engine.lanes import Lane, park, read_heads
from headrace.item import Item, Outcome
from headrace.ledger.dead_letters import Replay
from headrace.log.memory import MemoryLog
from headrace.log.ports import StoredRecord
from headrace.log.stored import stored_record
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.obstacles import die
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
    running,
    sample,
    settings_for,
    spread,
    until_settled,
    value,
    watched,
)
from tests.support.postgres_proxy import PostgresProxy
from tests.support.waiting import until

LATE: dict[str, Any] = {"partitions": 1, "retry_first_seconds": 60.0, "retry_max_seconds": 60.0}
"""A lane is due after half a minute at the earliest: it runs when the test says so."""


REPLAY_ALL = "update headrace.dead_letter set decision = 'replay', decided_at = now()"
"""What a person does who replays all letters at the same moment."""

REPLAYED = "select not exists (select from headrace.dead_letter where decision = 'replay' and settled_at is null)"


class Turnstile:
    """A handler's first lines: it raises while the service is broken, and waits for each event while it is closed."""

    def __init__(self) -> None:
        self.is_broken = True
        self.runs: list[tuple[str, int]] = []
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.opened.set()

    def __call__(self, event: Any) -> None:
        self.runs.append((event.page, event.number))
        self.entered.set()
        assert self.opened.wait(60)
        if self.is_broken:
            raise ValueError("not yet")

    def close(self) -> None:
        """Hold whatever comes from now on."""
        self.entered.clear()
        self.opened.clear()


@pytest.fixture
def turnstile() -> Any:
    made = Turnstile()
    yield made
    made.opened.set()


async def test_replayed_event_runs_behind_what_waits_in_its_lane(
    database_url: str, topic_name: str, turnstile: Turnstile
) -> None:
    platform = notebook(settings_for(database_url, **LATE, retry_attempts=2), topic_name, turnstile)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, *spread(topic_name, ["a"], 3))
        await until(lambda: _is_parked(runtime, 3), "all wait in the lane")
        _make_due(runtime, "a")
        await until(lambda: value(runtime, "select count(*) from headrace.dead_letter"), "the first one is given up")
        await until(lambda: _is_lane(runtime, (1, False)), "the second one has failed as well")
        turnstile.is_broken = False
        (letter,) = (await http.get("/dead-letters")).json()["dead_letters"]
        assert (await http.post(f"/dead-letters/{letter['id']}/replay")).status_code == 200
        await until(lambda: value(runtime, "select sum(applied) = 3 from headrace.ledger"), "all are applied")
        assert await pages(runtime) == {"a": [2, 3, 1]}


async def test_owner_that_lost_its_claim_uses_up_no_attempt(
    database_url: str, topic_name: str, turnstile: Turnstile
) -> None:
    """It neither counts the run of a parked event nor runs it."""
    platform = notebook(settings_for(database_url, **LATE), topic_name, turnstile)
    async with watched(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: _lane(runtime), "the event is parked")
        runs = len(turnstile.runs)
        await execute(database_url, "update headrace.claim set epoch = epoch + 1, token = gen_random_uuid()")
        _make_due(runtime, "a")
        await until(lambda: sample(runtime, "claim_fenced_total") == 1, "the owner is fenced")
        (row,) = await fetch(runtime, "select attempts, is_running from headrace.lane")
        assert tuple(row) == (1, False)
        assert len(turnstile.runs) == runs


async def test_run_of_a_parked_event_is_counted_before_it_starts(
    database_url: str, topic_name: str, turnstile: Turnstile
) -> None:
    """An owner that dies in it has used up the attempt."""
    log, platform = MemoryLog(), notebook(settings_for(database_url, **LATE), topic_name, turnstile)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: _lane(runtime), "the event is parked")
        assert await _lane(runtime) == (1, False)
        turnstile.close()
        _make_due(runtime, "a")
        await until(turnstile.entered.is_set, "the event runs again")
        assert await _lane(runtime) == (2, True)
        await die(runtime)
        turnstile.opened.set()
    await execute(database_url, "update headrace.lane set due_at = now()")
    turnstile.close()
    async with running(platform, log) as runtime:
        await until(turnstile.entered.is_set, "the event runs once more")
        assert await _lane(runtime) == (3, True)
        turnstile.opened.set()
        await until(lambda: _is_lane(runtime, (3, False)), "the run has failed")


async def test_run_that_an_outage_ended_uses_up_no_attempt(
    database_url: str, topic_name: str, turnstile: Turnstile
) -> None:
    async with PostgresProxy(database_url) as proxy:
        platform = notebook(settings_for(proxy.url, **LATE), topic_name, turnstile)
        async with running(platform, MemoryLog()) as runtime:
            await publish(runtime, noted(topic_name, "a", 1))
            await until(lambda: _lane(runtime), "the event is parked")
            turnstile.is_broken = False
            turnstile.close()
            _make_due(runtime, "a")
            await until(turnstile.entered.is_set, "the event runs again")
            proxy.drop_commit()
            runs = len(turnstile.runs)
            turnstile.opened.set()
            await until(lambda: proxy.cuts, "the run was lost in its commit")
            turnstile.close()
            await until(lambda: len(turnstile.runs) > runs, "the event runs once more")
            assert await _lane(runtime) == (2, True)
            turnstile.opened.set()
            await until_settled(runtime, "notes")
            assert await pages(runtime) == {"a": [1]}


async def test_heir_of_a_dead_owner_retries_one_event_at_a_time(
    database_url: str, topic_name: str, turnstile: Turnstile
) -> None:
    """An event that ends its process takes no attempt from other lanes."""
    log, platform = MemoryLog(), notebook(settings_for(database_url, **LATE), topic_name, turnstile)
    async with running(platform, log) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "b", "c"], 2))
        await until(lambda: _is_parked(runtime, 6), "all are parked")
        await die(runtime)
    await execute(database_url, "update headrace.lane set due_at = now()")
    turnstile.is_broken = False
    turnstile.close()
    async with running(platform, log) as runtime:
        await until(turnstile.entered.is_set, "the first event runs")
        assert await value(runtime, "select count(*) from headrace.lane where is_running") == 1
        turnstile.opened.set()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2], "b": [1, 2], "c": [1, 2]}
        assert await _retried(runtime) == [1] * 6


async def test_heir_of_a_polite_owner_retries_all_lanes_at_once(
    database_url: str, topic_name: str, turnstile: Turnstile
) -> None:
    log, platform = MemoryLog(), notebook(settings_for(database_url, **LATE), topic_name, turnstile)
    async with running(platform, log) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "b", "c"], 2))
        await until(lambda: _is_parked(runtime, 6), "all are parked")
    await execute(database_url, "update headrace.lane set due_at = now()")
    turnstile.is_broken = False
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2], "b": [1, 2], "c": [1, 2]}
        assert await _retried(runtime) == [3, 3], "the heads, and what waited behind them"
        assert await value(runtime, "select count(*) from headrace.parked") == 0


async def test_event_that_was_replayed_is_known_from_then_on(database_url: str, topic_name: str) -> None:
    """Its type was unknown when it came. A copy is skipped, also by the next owner; the letter of a copy stays open."""
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    one, platform = noted(topic_name, "a", 1, id="one"), notebook(settings, topic_name)
    async with running(_without_the_type(settings, topic_name), log) as runtime:
        await publish(runtime, one, one)
        await until_settled(runtime, "notes")
    await execute(database_url, f'{REPLAY_ALL} where "offset" = 0')
    async with watched(platform, log) as runtime:
        await until(lambda: has_pages(runtime, {"a": [1]}), "it is applied")
        await execute(database_url, f'{REPLAY_ALL} where "offset" = 1')
        await until(lambda: value(runtime, REPLAYED), "the second letter is taken up, or refused")
        (left,) = await fetch(runtime, 'select decision, error from headrace.dead_letter where "offset" = 1')
        assert left["decision"] is None and "was taken at offset 0" in left["error"]
        await publish(runtime, one)
        await until_settled(runtime, "notes")
    async with running(platform, log) as runtime:
        await publish(runtime, one, noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}
        assert await value(runtime, "select sum(skipped) from headrace.ledger") == 2


async def test_copies_that_are_replayed_together_are_applied_once(database_url: str, topic_name: str) -> None:
    """The letter of the second copy stays open, also for an owner that runs parked events one at a time."""
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    one = noted(topic_name, "a", 1, id="one")
    async with running(_without_the_type(settings, topic_name), log) as runtime:
        await publish(runtime, one, one)
        await until_settled(runtime, "notes")
        await die(runtime)
    await execute(database_url, REPLAY_ALL)
    async with watched(notebook(settings, topic_name), log) as runtime:
        await until(lambda: value(runtime, REPLAYED), "the replays are taken up")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}
        (left,) = await fetch(runtime, 'select "offset", error from headrace.dead_letter where decision is null')
        assert left["offset"] == 1 and "was taken at offset 0" in left["error"]


@pytest.mark.parametrize("decision", ["null", "'discard'"])
async def test_replay_that_is_no_longer_asked_for_is_not_taken_up(
    database_url: str, topic_name: str, decision: str
) -> None:
    """The decision counts at the moment of the commit, not when it was read."""
    settings, log = settings_for(database_url, partitions=1), MemoryLog()
    async with running(_without_the_type(settings, topic_name), log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
    await execute(database_url, f"update headrace.dead_letter set decision = {decision}")
    async with running(notebook(settings, topic_name), log) as runtime:
        (row,) = await fetch(runtime, "select * from headrace.dead_letter")
        worker = runtime.consumers["notes"].workers[0]
        worker.orders.replays = [Replay(row["id"], row["reason"], stored_record(row, 0))]
        await until(lambda: not worker.orders.replays, "the worker has taken the order")
        await publish(runtime, noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [2]}
        assert await value(runtime, "select settled_at is null from headrace.dead_letter")


async def test_head_of_a_lane_is_read_however_large_it_is(pool: asyncpg.Pool) -> None:
    """The lanes come in the order asked for, each from its head on; what comes behind the first event is limited."""
    async with pool.acquire() as connection:
        waiting = [_parked("a", 1), _parked("a", 2), _parked("b", 3), _parked("a", 4), _parked("b", 5)]
        await park(connection, "notebook.notes", 0, waiting)
        await park(connection, "notebook.others", 0, [_parked("a", 0)])
        await park(connection, "notebook.notes", 1, [_parked("b", 0)])

        async def numbers(events: int, max_bytes: int) -> list[tuple[str, int]]:
            most = dict.fromkeys(("b", "a"), events)
            heads = await read_heads(connection, "notebook.notes", 0, most, max_bytes=max_bytes)
            return [(key, number) for key, number, _ in heads]

        assert await numbers(2, 2**20) == [("b", 3), ("b", 5), ("a", 1), ("a", 2)]
        assert await numbers(1, 2**20) == [("b", 3), ("a", 1)]
        assert await numbers(100, 1) == [("b", 3)]
        assert await numbers(100, 2_500) == [("b", 3), ("b", 5)]


def _parked(key: str, number: int) -> Item:
    """Return an event of 1,000 bytes that waits in a lane."""
    record = StoredRecord("pages", 0, number, 0, key.encode(), b"x" * 1_000, ())
    return Item(record, Outcome.HANDLER_ERROR, key=key, number=number)


def _without_the_type(settings: Settings, topic: str) -> Headrace:
    """A service of the same subscription that does not know the notebook's event type."""
    platform = Headrace("notebook", settings)

    class Other(Event, type="other", topic=topic, key="page"):
        page: str

    @platform.subscription("notes").on(Other)
    def note(event: Other, kept: State[Notes]) -> None: ...

    return platform


def _lanes_of(runtime: Runtime) -> dict[str, Lane]:
    tenure = runtime.consumers["notes"].workers[0].tenure
    assert tenure is not None
    return tenure.memory.lanes.by_key


def _make_due(runtime: Runtime, key: str) -> None:
    """Let the owner run the lane at once."""
    (worker,) = runtime.consumers["notes"].workers.values()
    assert worker.tenure is not None
    _lanes_of(runtime)[key].due = 0.0
    worker.tenure.memory.lanes.put_back([key])


async def _lane(runtime: Runtime) -> tuple[int, bool] | None:
    """Return (attempts, whether a run has begun) of the only lane that the owner knows."""
    rows = await fetch(runtime, "select attempts, is_running from headrace.lane")
    return (rows[0]["attempts"], rows[0]["is_running"]) if rows and _lanes_of(runtime) else None


async def _is_lane(runtime: Runtime, expected: tuple[int, bool]) -> bool:
    return await _lane(runtime) == expected


async def _is_parked(runtime: Runtime, count: int) -> bool:
    """True when `count` events wait, and the owner knows of them."""
    waiting = sum(lane.events for lane in _lanes_of(runtime).values())
    return waiting == count and bool(await value(runtime, "select count(*) = $1 from headrace.parked", count))


async def _retried(runtime: Runtime) -> list[int]:
    """Return how many events each run of lanes applied."""
    rows = await fetch(runtime, "select applied from headrace.ledger where kind = 1 order by sequence")
    return [row["applied"] for row in rows]
