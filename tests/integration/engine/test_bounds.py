"""What the engine reads at a time is bounded by bytes, and what is large is decoded in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from headrace import Event, Headrace, State
from headrace.engine import retry, takeover, watch
from headrace.engine.decode import BatchDecoder
from headrace.engine.lanes import read_heads
from headrace.ledger import dead_letters as owner
from headrace.ledger.window import window_of
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.log.ports import TopicPartition
from headrace.log.stored import pack_headers
from headrace.settings import Settings
from headrace.state.cache import StateCache
from tests.support.obstacles import Gate, let_pass
from tests.support.platform import (
    Notes,
    has_pages,
    notebook,
    noted,
    pages,
    publish,
    running,
    settings_for,
    until_settled,
    value,
    watched,
)
from tests.support.waiting import until

LANES, EVENTS, EVENT_BYTES, BATCH_BYTES = 20, 10, 10_000, 65_536


async def test_run_of_lanes_reads_no_more_bytes_than_a_batch(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 events of 10 kB are parked. Whatever is read at once fits a batch, and all of it is applied in order."""
    read: list[tuple[int, int]] = []

    async def reading(*arguments: Any, **more: Any) -> Any:
        found = await read_heads(*arguments, **more)
        read.append((len(found), sum(len(record.value or b"") for _, _, record in found)))
        return found

    monkeypatch.setattr(retry, "read_heads", reading)
    is_broken = True

    def fail(event: Any) -> None:
        if is_broken:
            raise ValueError("not yet")

    settings = settings_for(database_url, partitions=1, retry_attempts=1_000, batch_bytes=BATCH_BYTES, outage_keys=0)
    async with running(_padded(settings, topic_name, fail), MemoryLog()) as runtime:
        padding = "x" * EVENT_BYTES
        names = [f"page-{number}" for number in range(LANES)]
        await publish(
            runtime,
            *(noted(topic_name, page, number, padding=padding) for number in range(EVENTS) for page in names),
        )
        await until(lambda: value(runtime, f"select count(*) = {LANES * EVENTS} from headrace.parked"), "all parked")
        is_broken = False
        await until_settled(runtime, "notes", seconds=60)
        assert await pages(runtime) == {page: list(range(EVENTS)) for page in names}
    assert max(size for _, size in read) <= BATCH_BYTES
    assert max(count for count, _ in read) > 1, "it reads them one by one"


async def test_single_event_of_a_lane_may_be_larger_than_a_batch(database_url: str, topic_name: str) -> None:
    calls = 0

    def fail(event: Any) -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise ValueError("at first")

    settings = settings_for(database_url, partitions=1, batch_bytes=BATCH_BYTES)
    async with running(_padded(settings, topic_name, fail), MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1, padding="x" * 3 * BATCH_BYTES))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


class Reads:
    """Notes what the watch reads of replays: for which partitions, how many and how large."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.partitions: list[list[int]] = []
        self.sizes: list[int] = []
        monkeypatch.setattr(watch, "read_replays", self._read)

    async def _read(self, connection: Any, group: str, partitions: Any) -> Any:
        self.partitions.append(list(partitions))
        found = await owner.read_replays(connection, group, partitions)
        self.sizes += [sum(len(replay.record.value or b"") for replay in each) for each in found.values()]
        return found

    def count(self, partition: int) -> int:
        """Return how often replays of the partition were asked for."""
        return sum(partition in each for each in self.partitions)


@pytest.mark.parametrize("obstacle", ["not owned", "refused"])
async def test_replays_that_cannot_be_taken_up_starve_no_others(
    database_url: str, topic_name: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    """500 wait for a partition that this process does not work on; they are not even read."""
    log, names = MemoryLog(), _names(2)
    platform = notebook(settings_for(database_url, partitions=2), topic_name)
    async with watched(platform, log) as runtime:
        await publish(runtime, noted(topic_name, names[0], 1), noted(topic_name, names[0], 2))
        await until_settled(runtime, "notes")
    if obstacle == "refused":
        await pool.execute("update headrace.claim set last_crc = last_crc + 1 where partition = 0")
        await log.publish([noted(topic_name, names[0], 3)])
    reads = Reads(monkeypatch)
    async with watched(platform, log, is_refused=obstacle == "refused") as runtime:
        if obstacle == "not owned":
            await runtime.consumers["notes"].lost([TopicPartition(topic_name, 0)])
        await until(lambda: reads.partitions and 0 not in reads.partitions[-1], "a look has begun since then")
        before = reads.count(0)
        await _put_away(pool, topic_name, names[0], range(10, 510))
        await _put_away(pool, topic_name, names[1], range(1, 4))
        await until(lambda: has_pages(runtime, {names[1]: [1, 2, 3]}), "the other partition's are applied")
        assert reads.count(0) == before, "they were read for nothing"
        assert await value(runtime, "select count(*) from headrace.dead_letter where settled_at is null") == 500


async def test_replays_are_not_read_while_paused(
    database_url: str, topic_name: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.execute("insert into headrace.subscription (subscription, paused) values ('notebook.notes', true)")
    reads = Reads(monkeypatch)
    async with watched(notebook(settings_for(database_url, partitions=1), topic_name), MemoryLog()) as runtime:
        await _put_away(pool, topic_name, "a", range(1, 6))
        await let_pass(0.5)
        assert reads.partitions == []
        await pool.execute("update headrace.subscription set paused = false")
        await until(lambda: has_pages(runtime, {"a": [1, 2, 3, 4, 5]}), "they are applied")


async def test_replays_are_read_once_while_their_owner_is_busy(
    database_url: str, topic_name: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """More bytes than one read may have: they come part by part."""
    reads = Reads(monkeypatch)
    settings = settings_for(database_url, partitions=1)
    async with watched(_padded(settings, topic_name, gate), MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "held", 1))
        await until(gate.entered.is_set, "the worker is busy")
        await _put_away(pool, topic_name, "a", range(20), padding="x" * 500_000)
        await until(lambda: reads.sizes, "the first of them are read")
        await let_pass(0.5)
        assert len(reads.sizes) == 1, "they were read again"
        gate.open()
        await until(lambda: has_pages(runtime, {"a": list(range(20))}), "they are applied")
    assert max(reads.sizes) <= owner.MOST_REPLAY_BYTES
    assert len(reads.sizes) >= 3


class Places:
    """Notes whether functions run on the loop's thread, with the size of what they were given."""

    def __init__(self) -> None:
        self.on_loop: list[tuple[str, int]] = []
        self.in_threads: list[tuple[str, int]] = []

    def noting(self, name: str, function: Callable[..., Any], size: Callable[..., int]) -> Callable[..., Any]:
        """Return the function, whose calls are noted."""

        def call(*arguments: Any, **more: Any) -> Any:
            is_loop = threading.current_thread() is threading.main_thread()
            (self.on_loop if is_loop else self.in_threads).append((name, size(*arguments)))
            return function(*arguments, **more)

        return call


async def test_large_things_are_decoded_off_the_loop(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of many records or of large ones, a window at a claim, and many states."""
    places = Places()
    monkeypatch.setattr(
        BatchDecoder,
        "decode",
        places.noting("records", BatchDecoder.decode, lambda _, records, seen: sum(len(r.value) for r in records)),
    )
    monkeypatch.setattr(StateCache, "fill", places.noting("states", StateCache.fill, lambda _, rows: len(rows)))
    monkeypatch.setattr(takeover, "window_of", places.noting("window", window_of, lambda rows, limit: len(rows)))
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    await log.create(topic_name, 1)
    await log.publish([noted(topic_name, f"page-{number}", 1) for number in range(1_000)])
    async with running(_padded(settings, topic_name), log) as runtime:
        await until_settled(runtime, "notes")
        await publish(runtime, noted(topic_name, "a", 1, padding="x" * 100_000))
        await until_settled(runtime, "notes")
        await publish(runtime, noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
    async with running(_padded(settings, topic_name), log) as runtime:
        await publish(runtime, *(noted(topic_name, f"page-{number}", 2) for number in range(1_000)))
        await until_settled(runtime, "notes")
    assert {name for name, _ in places.in_threads} == {"records", "states", "window"}
    assert ("states", 1_000) in places.in_threads
    assert max(size for name, size in places.on_loop if name == "records") < 65_536
    assert max(size for name, size in places.on_loop if name == "states") <= 64
    assert "window" not in dict(places.on_loop)


def _padded(settings: Settings, topic: str, before: Callable[[Any], None] = lambda event: None) -> Headrace:
    """Return a notebook whose events may carry a padding."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int
        padding: str = ""

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, kept: State[Notes]) -> None:
        before(event)
        kept.numbers.append(event.number)

    return platform


def _names(partitions: int) -> dict[int, str]:
    """Return a page for each partition."""
    return {partition_for(f"page-{number}".encode(), partitions): f"page-{number}" for number in range(100)}


async def _put_away(pool: asyncpg.Pool, topic: str, page: str, numbers: range, padding: str = "") -> None:
    """Make dead letters of a page's events, decided to be replayed, on the page's partition of two, or of one."""
    partitions = max(1, await pool.fetchval("select count(*) from headrace.claim"))
    for number in numbers:
        made = noted(topic, page, number, padding=padding)
        headers = {name: text.decode() for name, text in made.headers}
        await pool.execute(
            'insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", key, record_key, '
            "value, headers, source, event_id, type, reason, error, attempts, decision, decided_at) "
            "values ('notebook.notes', $1, $2, $3, 0, $4, $4, $5, $6, '/tests', $7, 'noted', 'gave_up', '', 1, "
            "'replay', now())",
            partition_for(page.encode(), partitions),
            topic,
            1_000_000 + number,
            made.key,
            made.value,
            pack_headers(made.headers),
            headers["ce_id"],
        )
