"""Handlers that never return: a sync one in its thread, and an async one that swallows every cancellation.

They hold up their own event. What they do when they return at last changes nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from headrace import Event, Headrace, State, Transaction
from headrace.engine import attend
from headrace.engine.worker import Phase
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord
from headrace.log.stored import pack_headers
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.platform import (
    QUICK,
    Notes,
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
    watched,
)
from tests.support.services import KINDS, entered
from tests.support.waiting import until

ASIDE = next(f"page-{number}" for number in range(100) if partition_for(f"page-{number}".encode(), 2) == 0)
HELD = next(f"held-{number}" for number in range(100) if partition_for(f"held-{number}".encode(), 2) == 1)


class Trap:
    """Catches a handler for each page that begins with `held`, until it is opened; `began` and `left` tell what ran."""

    def __init__(self) -> None:
        self.caught: list[tuple[str, int]] = []
        self.left: list[tuple[str, int]] = []
        self.ran: list[tuple[str, int, object]] = []
        """(page, number, thread or task) of each call; their numbers are used again once they have ended."""
        self._opened = threading.Event()

    def enter(self, event: Any) -> None:
        """Hold a sync handler."""
        self.ran.append((event.page, event.number, threading.current_thread()))
        if event.page.startswith("held") and not self._opened.is_set():
            self.caught.append((event.page, event.number))
            assert self._opened.wait(60)
            self.left.append((event.page, event.number))

    async def enter_deaf(self, event: Any) -> None:
        """Hold an async handler, whatever is cancelled."""
        self.ran.append((event.page, event.number, asyncio.current_task()))
        if event.page.startswith("held") and not self._opened.is_set():
            self.caught.append((event.page, event.number))
            while not self._opened.is_set():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)
            self.left.append((event.page, event.number))

    def open(self) -> None:
        """Let them all go, and hold none any more."""
        self._opened.set()


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    """A trap that is open when the test is over; what it holds gets little time to end once it is cancelled."""
    monkeypatch.setattr(attend, "GRACE_SECONDS", 0.1)
    made = Trap()
    yield made
    made.open()


def _service(settings: Settings, topic: str, trap: Trap, kind: str) -> Headrace:
    return entered(settings, topic, kind, trap.enter, trap.enter_deaf)


@pytest.mark.parametrize("kind", KINDS)
async def test_deaf_handler_keeps_no_order_from_other_partitions(
    database_url: str, topic_name: str, trap: Trap, kind: str
) -> None:
    """Events, a replay and a pause of the healthy partition come through while one hangs, and the stop ends."""
    settings = settings_for(database_url, partitions=2, handler_seconds=0.5, stuck_seconds=1.0, retry_attempts=1_000)
    async with watched(_service(settings, topic_name, trap, kind), MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, HELD, 1), noted(topic_name, ASIDE, 1))
        await until(lambda: len(trap.caught) >= 3, "it hangs, also in its lane")
        await _put_away(runtime, noted(topic_name, ASIDE, 2))
        await until(lambda: has_pages(runtime, {ASIDE: [1, 2]}), "a replay is applied")
        await execute(
            database_url, "insert into headrace.subscription (subscription, paused) values ('notebook.notes', true)"
        )
        workers = runtime.consumers["notes"].workers.values()
        await until(lambda: all(worker.orders.is_paused for worker in workers), "the pause is seen")
        await execute(database_url, "update headrace.subscription set paused = false")
        await publish(runtime, noted(topic_name, ASIDE, 3))
        await until(lambda: has_pages(runtime, {ASIDE: [1, 2, 3]}), "the resumption is seen")
        assert runtime.health.liveness() == (True, [])
        await asyncio.wait_for(runtime.consumers["notes"].stop(1.0), 10)
        assert await value(runtime, "select count(*) from headrace.claim where owner is not null") == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_stop_leaves_a_deaf_handler_behind(database_url: str, topic_name: str, trap: Trap, kind: str) -> None:
    """The stop ends at its deadline, the claim is released, and the event is applied by the next owner."""
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    async with watched(_service(settings, topic_name, trap, kind), log) as runtime:
        await publish(runtime, *spread(topic_name, ["held"], 3))
        await until(lambda: trap.caught, "it hangs")
        assert not await asyncio.wait_for(runtime.consumers["notes"].stop(0.1), 10)
        assert await value(runtime, "select owner from headrace.claim") is None
        trap.open()
        await until(lambda: trap.left, "the handler returns late")
    async with watched(_service(settings, topic_name, trap, kind), log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"held": [1, 2, 3]}
        first = trap.ran[0][2]
        assert [number for _, number, where in trap.ran if where == first].count(1) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_handler_that_returns_late_changes_nothing(
    database_url: str, topic_name: str, trap: Trap, kind: str
) -> None:
    """Its run is over: it commits nothing under the claim that is lost, and no further event of it runs."""
    settings = settings_for(database_url, partitions=1, handler_seconds=0.3, retry_attempts=1)
    endless = QUICK._replace(target=60.0)
    async with running(_service(settings, topic_name, trap, kind), MemoryLog(), pace=endless) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "held-1", "b", "c"], 3))
        await until(lambda: has_pages(runtime, {page: [1, 2, 3] for page in "abc"}), "the others are applied")
        await until_settled(runtime, "notes")
        assert [number for _, number in trap.caught] == [1, 2, 3], "each has hung once, and was given up"
        epoch, ledger = await _epoch_and_ledger(runtime)
        calls = len(trap.ran)
        trap.open()
        await until(lambda: len(trap.left) == 3, "they return late")
        await publish(runtime, noted(topic_name, "a", 4))
        await until(lambda: has_pages(runtime, {"a": [1, 2, 3, 4]}), "the partition flows on")
        assert [(page, number) for page, number, _ in trap.ran[calls:]] == [("a", 4)]
        assert await _epoch_and_ledger(runtime) == (epoch, ledger + 1)
        assert await pages(runtime) == {"a": [1, 2, 3, 4], "b": [1, 2, 3], "c": [1, 2, 3]}
        assert runtime.consumers["notes"].threads.abandoned == 0, "a thread that came back still counts"


async def test_handler_that_swallows_its_time_limit_has_failed(database_url: str, topic_name: str) -> None:
    """It was cut off in the middle, and returns as if nothing had happened."""
    settings = settings_for(database_url, partitions=1, handler_seconds=0.3, retry_attempts=2)
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    async def note(event: Noted, kept: State[Notes]) -> None:
        kept.numbers.append(event.number)
        if event.page == "slow":
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async with watched(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "slow"], 1))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}
        (letter,) = await fetch(runtime, "select attempts, error from headrace.dead_letter")
        assert letter["attempts"] == 2
        assert "swallowed" in letter["error"]


@pytest.mark.parametrize("kind", KINDS)
async def test_hung_retry_is_noticed_without_lag_and_counted(
    database_url: str, topic_name: str, trap: Trap, kind: str
) -> None:
    """Each run that does not return uses up an attempt, and the event is given up on in the end."""
    settings = settings_for(database_url, partitions=1, handler_seconds=0.3, retry_attempts=3)
    async with watched(_service(settings, topic_name, trap, kind), MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["held", "b"], 1))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"b": [1]}
        assert len(trap.caught) == 3
        (letter,) = await fetch(runtime, "select reason, attempts, error from headrace.dead_letter")
        assert (letter["reason"], letter["attempts"]) == ("gave_up", 3)
        assert "did not return" in letter["error"] or "TimeoutError" in letter["error"]


@pytest.mark.parametrize("kind", KINDS)
async def test_event_ahead_of_a_hung_one_is_not_blamed(
    database_url: str, topic_name: str, trap: Trap, kind: str
) -> None:
    """The first event of a lane works again, the one behind it hangs: the first is applied, the other given up."""
    settings = settings_for(database_url, partitions=1, handler_seconds=0.3, retry_attempts=3)
    platform, is_broken = Headrace("notebook", settings), True

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    def check(event: Noted) -> None:
        if is_broken:
            raise ValueError("not yet")
        event.page = "held" if event.number == 2 else "a"

    def note(event: Noted, kept: State[Notes]) -> None:
        check(event)
        trap.enter(event)
        kept.numbers.append(event.number)

    async def note_async(event: Noted, kept: State[Notes]) -> None:
        check(event)
        await trap.enter_deaf(event)
        kept.numbers.append(event.number)

    async def note_in_a_transaction(event: Noted, kept: State[Notes], transaction: Transaction) -> None:
        await note_async(event, kept)

    handlers: dict[str, Any] = {"sync": note, "async": note_async, "transaction": note_in_a_transaction}
    platform.subscription("notes").on(Noted)(handlers[kind])
    async with watched(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["k"], 3))
        await until(lambda: value(runtime, "select count(*) = 3 from headrace.parked"), "all wait in the lane")
        is_broken = False
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"k": [1, 3]}
        letters = await fetch(runtime, 'select "offset", attempts from headrace.dead_letter')
        assert [tuple(letter) for letter in letters] == [(1, 3)]


async def test_hung_handlers_hold_no_connection(database_url: str, topic_name: str, trap: Trap) -> None:
    """Each has a transaction; together they are more than the connections that there are."""
    settings = settings_for(database_url, partitions=1, pool_size=3, handler_seconds=0.2, retry_attempts=1)
    async with watched(_service(settings, topic_name, trap, "transaction"), MemoryLog()) as runtime:
        records: list[NewRecord] = []
        for number in range(5):
            records += [noted(topic_name, f"held-{number}", 1), noted(topic_name, "a", number)]
        await publish(runtime, *records)
        await until(lambda: has_pages(runtime, {"a": [0, 1, 2, 3, 4]}), "the others are applied")
        assert len(trap.caught) == 5
        assert trap.left == []
        assert sample(runtime, "worker_abandoned_total", reason="handler") == 5
        assert runtime.health.liveness() == (True, [])


async def test_hung_handlers_keep_no_place_from_other_partitions(
    database_url: str, topic_name: str, trap: Trap
) -> None:
    """Two handlers hang in the only two places; a third partition's events wait for a place already."""
    waits: dict[str, Any] = {
        "handler_threads": 2,
        "handler_seconds": 1.0,
        "drain_seconds": 1.0,
        "retry_attempts": 1,
        "stuck_seconds": 60.0,
    }
    settings = settings_for(database_url, partitions=3, **waits)
    names = {partition_for(f"page-{n}".encode(), 3): f"page-{n}" for n in range(100)}
    held = {partition_for(f"held-{n}".encode(), 3): f"held-{n}" for n in range(100)}
    async with watched(_service(settings, topic_name, trap, "sync"), MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, held[0], 1), noted(topic_name, held[1], 1))
        await until(lambda: len(trap.caught) == 2, "both hang")
        await publish(runtime, noted(topic_name, names[2], 1))
        await until(lambda: has_pages(runtime, {names[2]: [1]}), "the third partition flows on")
        assert sample(runtime, "worker_abandoned_total", reason="batch") == 0
        assert {worker.phase for worker in runtime.consumers["notes"].workers.values()} <= {
            Phase.RUNNING,
            Phase.CLAIMING,
        }


async def _epoch_and_ledger(runtime: Runtime) -> tuple[int, int]:
    (row,) = await fetch(runtime, "select (select epoch from headrace.claim), (select count(*) from headrace.ledger)")
    return row[0], row[1]


async def _put_away(runtime: Runtime, record: NewRecord) -> None:
    """Make a dead letter of the record, decided to be replayed on partition 0."""
    headers = {name: text.decode() for name, text in record.headers}
    await value(
        runtime,
        'insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", key, record_key, '
        "value, headers, source, event_id, type, reason, error, attempts, decision, decided_at) values "
        "('notebook.notes', 0, $1, 1000000, 0, $2, $2, $3, $4, $5, $6, 'noted', 'gave_up', '', 1, 'replay', now())",
        record.topic,
        record.key,
        record.value,
        pack_headers(record.headers),
        headers["ce_source"],
        headers["ce_id"],
    )
