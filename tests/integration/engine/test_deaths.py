"""The death of an owner at work is counted, and nothing else is; an event that kills its owners is given up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from headrace import Event, Headrace, State
from headrace.effects.rows import load
from headrace.engine import log_batches, retry
from headrace.engine.claim import BLAMED_CRASHES, KILLED, SUSPECT_CRASHES, claim, enroll, release
from headrace.engine.company import Company
from headrace.engine.lanes import Lane, Lanes, count_runs, open_lanes, park
from headrace.errors import FencedError
from headrace.handlers.policy import Policy
from headrace.item import Item
from headrace.log.memory import MemoryLog
from headrace.log.ports import StoredRecord, TopicInfo, TopicPartition
from headrace.order.numbers import number_of
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.obstacles import Gate, die, leave_dead_owners
from tests.support.platform import (
    Notes,
    client,
    fetch,
    has_pages,
    holdings,
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
)
from tests.support.waiting import until

INFO = TopicInfo("pages", 1, "log")


async def test_owners_that_die_while_nothing_is_to_do_are_not_counted(database_url: str, topic_name: str) -> None:
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1), topic_name)
    for events in (0, 3):
        for _ in range(BLAMED_CRASHES + 1):
            async with running(platform, log) as runtime:
                await until_settled(runtime, "notes")
                await die(runtime)
                assert (await _claim(runtime))[1] is not None
        async with running(platform, log) as runtime:
            (holding,) = holdings(runtime, "notes")
            assert not holding.claim.is_suspect
            await publish(runtime, *(noted(topic_name, "a", events + number) for number in range(3)))
            await until_settled(runtime, "notes")
            assert sample(runtime, "events_parked_total") == 0
            await die(runtime)
    async with running(platform, log) as runtime:
        assert await pages(runtime) == {"a": [0, 1, 2, 3, 4, 5]}


async def test_only_progress_clears_the_count_of_deaths(pool: asyncpg.Pool) -> None:
    """A retry of a lane and a note that emits were published commit as well, and are no progress of the log."""
    source = TopicPartition("pages", 0)
    async with pool.acquire() as borrowed:
        connection: Any = borrowed
        await _take(connection, "first")
        held = await _take(connection, "second")
        assert held.crashes == 1
        await held.advance(connection, held.next_offset, 1, 1, None)
        held.advanced(held.next_offset, 1, 1, None)
        assert held.crashes == 1
        held = await _take(connection, "third")
        assert held.crashes == 2 and held.is_suspect
        await held.advance(connection, held.next_offset + 1, 2, 2, None)
        held.advanced(held.next_offset + 1, 2, 2, None)
        assert held.crashes == 0
        held = await _take(connection, "fourth")
        assert held.crashes == 1
        await release(connection, "notes", source.partition, [source.topic], "somebody else")
        assert (await _take(connection, "fifth")).crashes == 2
        await release(connection, "notes", source.partition, [source.topic], "fifth")
        assert (await _take(connection, "sixth")).crashes == 0


async def test_suspicion_ends_after_a_batch_of_single_events(
    database_url: str, topic_name: str, pool: asyncpg.Pool
) -> None:
    """The events of that batch are applied one at a time."""
    await leave_dead_owners(pool, topic_name, 1)
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1, batch_records=20), topic_name)
    await log.create(topic_name, 1)
    await log.publish([noted(topic_name, "a", number) for number in range(100)])
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": list(range(100))}
        rows = await fetch(runtime, "select next_offset - first_offset as size from headrace.ledger order by sequence")
        sizes = [row["size"] for row in rows]
        assert sizes[:20] == [1] * 20
        assert len(sizes) < 40 and max(sizes) == 20, sizes
        assert sample(runtime, "events_parked_total") == 0


@pytest.mark.parametrize("with_lane", [False, True], ids=["alone", "behind a lane that is due"])
async def test_event_that_kills_its_owners_is_given_up(database_url: str, topic_name: str, with_lane: bool) -> None:
    gates, runs, log = [Gate()], 0, MemoryLog()

    def handle(event: Any) -> None:
        nonlocal runs
        if event.page == "lane":
            raise ValueError("always")
        runs += (event.page, event.number) == ("held", 1)
        gates[-1](event)

    async def is_over(runtime: Runtime) -> bool:
        return gates[-1].entered.is_set() or bool(await value(runtime, "select count(*) from headrace.dead_letter"))

    settings = settings_for(database_url, partitions=1, retry_attempts=10_000, retry_max_seconds=0.1, stuck_seconds=0.2)
    platform = notebook(settings, topic_name, handle)
    while runs < 20:
        async with running(platform, log) as runtime:
            if runs == 0:
                if with_lane:
                    await publish(runtime, noted(topic_name, "lane", 1))
                    await until(lambda: value(runtime, "select count(*) from headrace.lane"), "it waits in its lane")
                await publish(runtime, *spread(topic_name, ["a", "b", "held", "c"], 2))
            await until(lambda: is_over(runtime), "the event runs, or was given up")
            if not gates[-1].entered.is_set():
                break
            await die(runtime)
        gates[-1].open()
        gates.append(Gate())
    assert runs == len(gates) - 1 <= 8
    async with running(platform, log) as runtime:
        await until(
            lambda: has_pages(runtime, {"a": [1, 2], "b": [1, 2], "c": [1, 2], "held": [2]}), "all else is applied"
        )
        letters = await fetch(runtime, "select key, reason, error from headrace.dead_letter")
        assert [(row["key"], row["reason"]) for row in letters] == [(b"held", "gave_up")]
        assert "the process died each time" in letters[0]["error"]
        assert await value(runtime, "select sum(applied) from headrace.ledger") == 7


async def test_owners_that_die_before_they_begin_are_not_counted(pool: asyncpg.Pool) -> None:
    """No event can have ended them: their handlers never ran. What was counted before stays."""
    partition = TopicPartition("pages", 0)
    async with pool.acquire() as connection:
        await _take(connection, "first")
        assert (await _take(connection, "second")).crashes == 1
        for owner in ("third", "fourth", "fifth"):
            held = await claim(connection, "notes", partition, owner, info=INFO, log_end=10, suspect_records=3)
        assert held.crashes == 2, "the second had begun"
        with pytest.raises(FencedError):
            await (await _stale(connection)).begin_applying(connection)


async def _stale(connection: Any) -> Any:
    """Return a claim that another owner has taken meanwhile."""
    held = await _take(connection, "sixth")
    await _take(connection, "seventh")
    return held


async def test_death_in_a_lane_is_noted_by_the_claim_itself(pool: asyncpg.Pool) -> None:
    """The log is away when the next owner claims, so that it claims once more: now the former owner is itself."""
    async with pool.acquire() as borrowed:
        connection: Any = borrowed
        await _take(connection, "dead")
        item = Item(StoredRecord("pages", 0, 0, 0, b"a", b"", ()))
        item.key, item.number = "a", 1
        lane = Lane(due=0.0, since=0.0, attempts=1)
        await park(connection, "notes", 0, [item])
        await open_lanes(connection, "notes", 0, {"a": lane})
        await count_runs(connection, "notes", 0, {"a": 2})
        for _ in range(2):
            await _take(connection, "next")
        lanes = Lanes(lambda handler: Policy(12, 0.5, 300.0))
        await lanes.load(connection, "notes", 0)
        assert (lanes.by_key["a"].attempts, lanes.by_key["a"].is_counted) == (2, False)


async def test_death_in_a_call_is_counted_once_with_the_claims(pool: asyncpg.Pool) -> None:
    """The next owner gets no further than its claims of two topics, and takes them again."""
    books = TopicInfo("books", 1, "log")
    async with pool.acquire() as borrowed:
        connection: Any = borrowed
        await connection.execute(
            'insert into headrace.effect (subscription, partition, identity, number, key, topic, "offset", "timestamp",'
            r" headers) values ('notes', 0, '1', 1, 'a', 'pages', 0, 0, '\x90'),"
            r" ('notes', 0, '2', 2, 'a', 'books', 0, 0, '\x90')"
        )
        counted = []
        for owner in ("dead", "next", "next", "last"):
            for info in (books, INFO):
                await _take(connection, owner, info)
            counted.append([each.attempts for each in await load(connection, "notes", 0)])
        assert counted == [[0, 0], [1, 0], [1, 0], [2, 0]]


@pytest.mark.parametrize(
    ("error_type", "is_first"), [(None, True), ("SequenceGapError", True), ("ValueError", False)], ids=str
)
async def test_what_is_missing_comes_before_a_head_that_never_ran(
    pool: asyncpg.Pool, error_type: str | None, is_first: bool
) -> None:
    """A run that was to look for a gap died: it was counted, and the head's handler has not failed."""
    async with pool.acquire() as borrowed:
        connection: Any = borrowed
        await _take(connection, "dead")
        head = Item(
            StoredRecord("pages", 0, 0, 0, b"a", b"", ()), key="a", place=26, number=number_of(26, 1, is_replay=False)
        )
        await park(connection, "notes", 0, [head])
        await open_lanes(connection, "notes", 0, {"a": Lane(due=0.0, since=0.0, error_type=error_type)})
        await count_runs(connection, "notes", 0, {"a": 1})
        await _take(connection, "next")
        lanes = Lanes(lambda handler: Policy(12, 0.5, 300.0), is_in_sequence=True)
        await lanes.load(connection, "notes", 0)
        missing = Item(StoredRecord("pages", 0, 1, 0, b"a", b"", ()), key="a", place=25)
        assert (lanes.number_of(missing, 2, lanes.by_key["a"]) < head.number) == is_first


@pytest.mark.parametrize("where", ["batch", "lane"])
async def test_what_has_died_before_runs_while_nothing_else_does(
    database_url: str, topic_name: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """If the process dies once more, that is not held against an event that has not begun."""
    monkeypatch.setattr("headrace.engine.company.ALONE_SECONDS", 60.0)
    log, gate, broken = MemoryLog(), Gate(), {"a"} if where == "lane" else set[str]()
    platform = _two_subscriptions(settings_for(database_url, partitions=1), topic_name, gate, broken)
    async with running(platform, log) as runtime:
        if where == "lane":
            await publish(runtime, noted(topic_name, "a", 1))
            await until(lambda: value(runtime, "select count(*) from headrace.lane"), "it waits in its lane")
    broken.clear()
    await pool.execute("update headrace.lane set error = $1, error_type = null", KILLED)
    if where == "batch":
        await log.publish([noted(topic_name, "a", 1)])
        await pool.execute(
            "update headrace.claim set crashes = $1, owner = 'dead', claimed_offset = next_offset, is_applying = true "
            "where subscription = 'notebook.notes'",
            SUSPECT_CRASHES - 1,
        )
    await pool.execute("insert into headrace.subscription (subscription, paused) values ('notebook.notes', true)")
    async with running(platform, log) as runtime, client(platform) as web:
        await publish(runtime, noted(topic_name, "held", 1))
        await until(gate.entered.is_set, "a handler of another subscription runs")
        await web.post("/subscriptions/notes/resume")
        company = runtime.consumers["notes"]._context.company
        await until(lambda: not company._is_open.is_set(), "it waits for that one")
        begun = "select count(*) from headrace.lane where is_running"
        if where == "batch":
            begun = "select count(*) from headrace.claim where subscription = 'notebook.notes' and is_applying"
        assert await value(runtime, begun) == 0
        gate.open()
        await until_settled(runtime, "notes")
        assert await value(runtime, "select count(*) from headrace.state where key = 'a'") == 2
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0


async def test_wait_for_a_run_that_is_alone_is_not_time_of_handlers(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next batch is as large as if nothing had been waited for, and the key of a quick lane is not slow."""
    seconds = 0.0

    @asynccontextmanager
    async def wait_long(company: Company, *, alone: bool) -> AsyncIterator[None]:
        nonlocal seconds
        seconds += 1_000.0
        yield

    clock = SimpleNamespace(perf_counter=lambda: seconds, monotonic=lambda: seconds)
    monkeypatch.setattr(Company, "enter", wait_long)
    monkeypatch.setattr(log_batches, "time", clock)
    monkeypatch.setattr(retry, "time", clock)
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
        owner = runtime.consumers["notes"].workers[0].tenure
        assert owner is not None
        assert owner._batches._size.records > 1
        owner.memory.lanes.set_aside("a")
        await publish(runtime, noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert not owner.memory.lanes.aside


def _two_subscriptions(settings: Settings, topic: str, gate: Gate, broken: set[str]) -> Headrace:
    """Return a service of two subscriptions to one topic: one fails on broken pages, the other has a gate."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, kept: State[Notes]) -> None:
        if event.page in broken:
            raise ValueError("broken")
        kept.numbers.append(event.number)

    @platform.subscription("gated").on(Noted)
    def pass_gate(event: Noted, kept: State[Notes]) -> None:
        gate(event)
        kept.numbers.append(event.number)

    return platform


async def test_polite_restarts_count_no_crash(database_url: str, topic_name: str) -> None:
    log = MemoryLog()
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    for number in range(1, 5):
        async with running(platform, log) as runtime:
            row = (await fetch(runtime, "select crashes, epoch from headrace.claim"))[0]
            assert (row["crashes"], row["epoch"]) == (0, number)


async def test_owners_that_die_are_counted_and_progress_clears_them(pool: asyncpg.Pool) -> None:
    source = TopicPartition("pages", 0)

    async def crashes_seen_by(owner: str, log_end: int = 10) -> int:
        async with pool.acquire() as connection:
            await enroll(connection, "notes", INFO, {0: 0})
            held = await claim(connection, "notes", source, owner, info=INFO, log_end=log_end, suspect_records=100)
            await held.begin_applying(connection)
            assert held.is_suspect == (held.crashes >= 2)
            assert held.blames_next_event == (held.crashes >= 3)
            return held.crashes

    assert await crashes_seen_by("first") == 0
    assert await crashes_seen_by("second") == 1
    assert await crashes_seen_by("second") == 1, "the same owner claimed again: nobody died"
    assert await crashes_seen_by("third") == 2
    await pool.execute("update headrace.claim set next_offset = 5")
    assert await crashes_seen_by("fourth") == 1, "the third got on before it died"
    assert await crashes_seen_by("fifth") == 2
    assert await crashes_seen_by("sixth") == 3
    async with pool.acquire() as connection:
        await release(connection, "notes", 0, ["pages"], "sixth")
    assert await crashes_seen_by("seventh") == 0, "the sixth released its claim"
    assert await crashes_seen_by("eighth", log_end=5) == 0, "nothing was left to apply: no event killed it"


async def _take(connection: Any, owner: str, info: TopicInfo = INFO) -> Any:
    """Claim offset 5 of a partition that has ten records."""
    source = TopicPartition(info.topic, 0)
    await enroll(connection, "notes", info, {0: 5})
    held = await claim(connection, "notes", source, owner, info=info, log_end=10, suspect_records=3)
    await held.begin_applying(connection)
    return held


async def _claim(runtime: Runtime) -> tuple[int, str | None, int]:
    """Return (next offset, owner, crashes) of the only claim."""
    (row,) = await fetch(runtime, "select next_offset, owner, crashes from headrace.claim")
    return row["next_offset"], row["owner"], row["crashes"]
