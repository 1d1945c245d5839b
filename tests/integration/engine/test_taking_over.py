"""What a new owner reads from the ledger: every id of its window, and every emit that may not be in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import asyncpg
import msgspec
import pytest

from headrace import Emit, Event, Headrace
from headrace.emits.relay import Relay
from headrace.engine.claim import claim, enroll, known_partitions
from headrace.engine.worker import Phase
from headrace.handlers.subscription import Subscription
from headrace.ledger.rows import Kind, Row, insert_row, pack_emits, pack_marks, read_unmarked
from headrace.ledger.window import FEW_ROWS, read_window, window_of
from headrace.log.memory import MemoryLog, MemoryReader
from headrace.log.ports import NewRecord, Position, TopicPartition
from headrace.runtime import Runtime
from headrace.settings import Settings
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.tracing import Tracing
from tests.support.obstacles import die
from tests.support.platform import (
    execute,
    fetch,
    notebook,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    until_settled,
    value,
)
from tests.support.waiting import until

PAGES = TopicPartition("pages", 0)
GROUP = "notebook.notes"


def identities(*numbers: int) -> list[bytes]:
    """Return made-up identities, 16 bytes each."""
    return [number.to_bytes(16) for number in numbers]


def echo(number: int) -> NewRecord:
    """Return the record of an emit."""
    return NewRecord("echoes", b"a", b"%d" % number, [])


async def fill(
    connection: Any,
    rows: Mapping[int, Sequence[bytes]],
    *,
    emits: Mapping[int, Sequence[NewRecord]] | None = None,
    partition: TopicPartition = PAGES,
) -> None:
    """Write ledger rows: the identities of each sequence number, and what it emitted."""
    for sequence, ids in rows.items():
        marks = pack_marks([sequence << 32 | 7] * len(ids))
        packed = pack_emits((emits or {}).get(sequence, []))
        row = Row(sequence, Kind.BATCH, 1, 0, 1, 0, 0, 0, 0, b"".join(ids), marks, packed)
        await insert_row(connection, GROUP, partition, row)


async def test_window_is_loaded_over_many_rows(pool: asyncpg.Pool) -> None:
    """The newest ids up to the limit are known, however many rows hold them; older ones need not be."""
    many = 5 * FEW_ROWS
    async with pool.acquire() as connection:
        await fill(connection, {number: identities(number) for number in range(1, many + 1)})
        for limit in (1, FEW_ROWS - 1, FEW_ROWS, FEW_ROWS + 1, 4 * FEW_ROWS, many, many + 1):
            packed = await read_window(connection, GROUP, PAGES, many, limit)
            window = window_of(packed, limit)
            newest = range(max(1, many + 1 - limit), many + 1)
            assert set(identities(*newest)) <= window.marks.keys(), f"limit {limit}"
            assert window.marks[identities(many)[0]] == many << 32 | 7
            assert len(packed) == len({ids for ids, _, _ in packed}), "a row was read twice"


async def test_window_holds_the_last_batch_and_no_row_of_others(pool: asyncpg.Pool) -> None:
    """It ends with the row that the claim names, and rows without ids do not count."""
    other = TopicPartition("pages", 1)
    async with pool.acquire() as connection:
        await fill(connection, {1: identities(1, 2), 2: [], 3: identities(3), 4: [], 5: identities(5)})
        await fill(connection, {1: identities(91), 3: identities(93)}, partition=other)
        window = window_of(await read_window(connection, GROUP, PAGES, 3, 100), 100)
        assert list(window.marks) == identities(1, 2, 3)
        assert await read_window(connection, "notebook.others", PAGES, 3, 100) == []


async def test_every_unmarked_emit_is_published(pool: asyncpg.Pool) -> None:
    """In order, however many rows there are, and none that is marked."""
    rows = range(1, 251)
    log = MemoryLog()
    await log.create("echoes", 1)
    subscription, metrics = Subscription("notes", service="notebook"), Metrics(version="1", role="worker")
    async with pool.acquire() as connection:
        emits = {number: [echo(number)] for number in rows if number % 25}  # every 25th batch emitted nothing
        await fill(connection, {number: identities(number) for number in rows}, emits=emits)
        await fill(connection, {20: identities(9)}, emits={20: [echo(999)]}, partition=TopicPartition("pages", 1))
        assert [found[0] for found in await read_unmarked(connection, GROUP, PAGES, 247)] == [248, 249]
    relay = Relay(log, metrics, Tracing(), subscription, PAGES, 7, pool.acquire)
    await relay.publish_unmarked()
    values = [record.value for record in log._topics["echoes"][0]]
    assert values == [b"%d" % number for number in emits if number > 7]
    assert metrics.registry.get_sample_value(
        "headrace_emits_republished_total", {"subscription": "notes", "topic": "echoes"}
    ) == len(values)


async def test_outcome_of_a_commit_is_asked_behind_its_session(pool: asyncpg.Pool) -> None:
    """A session that is about to commit holds the claim: the answer waits for it, and is right."""
    async with pool.acquire() as working, pool.acquire() as asking, pool.acquire() as watching:
        held = await _take(working, "me")
        async with working.transaction():
            await held.advance(working, 1, 1, 1, None)
            asked = asyncio.create_task(_was_committed(held, asking))
            pid = asking.get_server_pid()
            await until(lambda: _waits_or_is_done(watching, pid, asked), "the question waits, or is answered")
            assert not asked.done(), "the outcome was told while the session could still commit"
        assert await asked


@pytest.mark.parametrize("is_guarded", [False, True], ids=["a batch that commits", "a batch with its own SQL"])
async def test_second_claimer_waits_for_the_batch_in_flight(pool: asyncpg.Pool, is_guarded: bool) -> None:
    """It begins behind that batch, with a token of its own."""
    async with pool.acquire() as working, pool.acquire() as claiming, pool.acquire() as watching:
        held = await _take(working, "me")
        async with working.transaction():
            if is_guarded:
                await held.guard(working)
            else:
                await held.advance(working, 4, 1, 1, None)
            taken = asyncio.create_task(_take(claiming, "you"))
            pid = claiming.get_server_pid()
            await until(lambda: _waits_or_is_done(watching, pid, taken), "the claim waits, or is taken")
            assert not taken.done(), "the claim was taken while its owner's SQL ran"
            if is_guarded:
                await held.advance(working, 4, 1, 1, None)
        late = await taken
        assert (late.next_offset, late.epoch, late.sequence, late.is_orphaned) == (4, held.epoch + 1, 1, True)
        assert late.token == await watching.fetchval("select token from headrace.claim") != held.token


async def test_claim_keeps_the_log_that_its_offsets_belong_to(pool: asyncpg.Pool) -> None:
    """One that was made before claims knew their log takes the log that it is claimed with."""
    async with pool.acquire() as connection:
        await _take(connection, "me")
        held = await claim(connection, GROUP, PAGES, "you", log_id="other", log_end=10, suspect_records=1)
        assert held.log_id == await connection.fetchval("select log_id from headrace.claim") == "log"
        await connection.execute("update headrace.claim set log_id = null")
        held = await claim(connection, GROUP, PAGES, "you", log_id="other", log_end=10, suspect_records=1)
        assert held.log_id == await connection.fetchval("select log_id from headrace.claim") == "other"


async def test_known_partitions_are_those_of_the_topic(pool: asyncpg.Pool) -> None:
    """Those of other topics and groups do not count, and a second enrolment moves nothing."""
    async with pool.acquire() as connection:
        await enroll(connection, GROUP, "pages", "log", {0: 5, 1: 6, 2: 7})
        await enroll(connection, GROUP, "others", "log", {0: 0})
        await enroll(connection, "shop.wallets", "pages", "log", dict.fromkeys(range(9), 0))
        assert await known_partitions(connection, GROUP, "pages") == (3, "log")
        assert await known_partitions(connection, GROUP, "unknown") == (0, None)
        await enroll(connection, GROUP, "pages", "log", {0: 0, 1: 0, 2: 0})
        sql = "select next_offset from headrace.claim where subscription = $1 and topic = 'pages' order by partition"
        assert [row["next_offset"] for row in await connection.fetch(sql, GROUP)] == [5, 6, 7]


class Barrier(MemoryLog):
    """A log that keeps emits waiting while it is closed, or until a reader is closed: that is, until a stop."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        self.asked = 0

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append; emits once the barrier is open."""
        if any(record.topic.endswith("-echoes") for record in records):
            self.asked += 1
            await self.opened.wait()
        return await super().publish(records)

    def echoes(self, topic: str) -> list[bytes | None]:
        """What the log has of the emits."""
        return [record.key for record in self._topics[f"{topic}-echoes"][0]]


class UntilClosed(Barrier):
    """A barrier that opens when the reader of the pages is closed."""

    async def reader(self, positions: Mapping[TopicPartition, int]) -> MemoryReader:
        """Return a reader that opens the barrier as it is closed."""
        made = await super().reader(positions)
        close = made.close

        async def close_and_open() -> None:
            await close()
            self.opened.set()

        made.close = close_and_open  # type: ignore[method-assign]
        return made


async def test_stop_publishes_what_was_emitted_and_marks_it(database_url: str, topic_name: str) -> None:
    """So the next owner has nothing to publish again."""
    log = UntilClosed()
    async with running(_echoing(settings_for(database_url, partitions=1), topic_name), log) as runtime:
        await publish(runtime, *(noted(topic_name, page, 1) for page in "abc"))
        await until(lambda: log.asked, "the emits wait for the log")
        assert await value(runtime, "select emitted_through from headrace.claim") == 0
    assert log.echoes(topic_name) == [b"a", b"b", b"c"]
    async with running(_echoing(settings_for(database_url, partitions=1), topic_name), log) as runtime:
        assert await value(runtime, "select emitted_through = sequence and sequence > 0 from headrace.claim")
        assert sample(runtime, "emits_republished_total") == 0


async def test_emits_are_not_marked_by_later_batches_while_they_wait(database_url: str, topic_name: str) -> None:
    """Their owner dies, and the next one publishes them."""
    log, settings = Barrier(), settings_for(database_url, partitions=1)
    async with running(_echoing(settings, topic_name), log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: log.asked, "the emit waits for the log")
        for number in (0, 0, 2):  # a number of 0 is noted without an echo
            done = await value(runtime, "select sequence from headrace.claim")
            await publish(runtime, noted(topic_name, "b", number))
            await until(partial(_is_past, runtime, done), "a later batch is committed")
        assert await value(runtime, "select emitted_through from headrace.claim") == 0
        await die(runtime)
    assert log.echoes(topic_name) == []
    log.opened.set()
    async with running(_echoing(settings, topic_name), log) as runtime:
        assert log.echoes(topic_name) == [b"a", b"b"]
        assert sample(runtime, "emits_republished_total") == 2


async def test_emits_are_published_before_the_first_batch(database_url: str, topic_name: str) -> None:
    """What the new owner itself emits comes behind what the old one left."""
    log, settings = Barrier(), settings_for(database_url, partitions=1)
    async with running(_echoing(settings, topic_name), log) as runtime:
        await publish(runtime, noted(topic_name, "old", 1))
        await until(lambda: log.asked, "the emit waits for the log")
        await die(runtime)
    await log.publish([noted(topic_name, "new", 1)])
    async with running(_echoing(settings, topic_name), log, is_waiting=True) as runtime:
        await until(lambda: log.asked == 2, "the new owner publishes what the old one left")
        assert await value(runtime, "select next_offset from headrace.claim") == 1
        log.opened.set()
        await until_settled(runtime, "notes")
    assert log.echoes(topic_name) == [b"old", b"new"]


async def test_emits_of_a_batch_that_is_rolled_back_never_leave(database_url: str, topic_name: str) -> None:
    """The handler is done, and Postgres refuses what it did."""
    log = Barrier()
    log.opened.set()
    settings = settings_for(database_url, partitions=1, retry_attempts=2)
    async with running(_echoing(settings, topic_name), log) as runtime:
        await fetch(runtime, "alter table headrace.ledger add check (applied = 0)")
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: value(runtime, "select count(*) from headrace.dead_letter"), "the event is given up")
        await until_settled(runtime, "notes")
        assert log.asked == 0


class Holed(MemoryLog):
    """A log in which some offsets hold no record that a reader sees, as compacted or aborted ones in Kafka."""

    async def reader(self, positions: Mapping[TopicPartition, int]) -> MemoryReader:
        """Return a reader that passes over the records with the key `hole`."""
        made = await super().reader(positions)
        take = made._take

        def take_visible(max_records: int, max_bytes: int) -> dict[TopicPartition, list[Any]]:
            found = {p: [r for r in records if r.key != b"hole"] for p, records in take(max_records, max_bytes).items()}
            return {p: records for p, records in found.items() if records}

        made._take = take_visible  # type: ignore[method-assign]
        return made


async def test_claim_passes_over_holes_and_keeps_its_fingerprint(database_url: str, topic_name: str) -> None:
    """So a topic that was created again is still told from the one that was read."""
    log, platform = Holed(), notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        (before,) = await fetch(runtime, "select last_offset, last_timestamp, last_crc from headrace.claim")
        assert before["last_offset"] == 1
        hole = NewRecord(topic_name, b"hole", None, [])
        await publish(runtime, hole, hole)
        await until_settled(runtime, "notes")
        (after,) = await fetch(runtime, "select last_offset, last_timestamp, last_crc from headrace.claim")
        assert after == before
        await publish(runtime, hole, noted(topic_name, "a", 4), hole, noted(topic_name, "a", 5), hole)
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2, 4, 5]}
        rows = await fetch(runtime, "select first_offset, next_offset from headrace.ledger order by sequence")
        assert [tuple(row) for row in rows] == [(0, 2), (2, 4), (4, 8), (8, 9)]
    records = log._topics[topic_name][0]
    records[7] = msgspec.structs.replace(records[7], value=b"another")
    async with running(platform, log, is_refused=True) as runtime:
        assert "created again" in runtime.health.ready_report().body.decode()


@pytest.mark.parametrize("is_waiting", [False, True], ids=["events that come later", "events that wait already"])
async def test_restart_reads_nothing_twice_without_a_window(
    database_url: str, topic_name: str, is_waiting: bool
) -> None:
    """The record before the next offset is read to be compared, and not applied; the one at it is."""
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1, dedupe_window_ids=0), topic_name)
    await log.create(topic_name, 1)
    for number in (1, 2, 3):
        if is_waiting:
            await log.publish([noted(topic_name, "a", number)])
        async with running(platform, log) as runtime:
            if not is_waiting:
                await publish(runtime, noted(topic_name, "a", number))
            await until_settled(runtime, "notes")
            assert await pages(runtime) == {"a": list(range(1, number + 1))}
            assert sample(runtime, "log_fetched_records_total") == 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("update headrace.claim set log_id = 'elsewhere'", "was applied from elsewhere"),
        ("delete from headrace.claim where partition = 1", "has 2 partitions and had 1"),
        ("update headrace.claim set next_offset = 99 where partition = 1", "the claim's next offset is 99"),
    ],
    ids=["another log", "an added partition", "a log that lost its tail"],
)
async def test_log_that_does_not_continue_is_refused_at_the_claim(
    database_url: str, topic_name: str, damage: str, reason: str
) -> None:
    """Whatever was compared when the process started: the topic may have changed since."""
    platform = notebook(settings_for(database_url, partitions=2), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, f"page-{number}", 1) for number in range(10)))
        await until_settled(runtime, "notes")
        consumer, partitions = runtime.consumers["notes"], [TopicPartition(topic_name, number) for number in (0, 1)]
        await consumer.revoked(partitions[1:])
        await execute(database_url, damage)
        await consumer.assigned(partitions)
        settled = (Phase.REFUSED, Phase.RUNNING)
        await until(lambda: consumer.workers[1].phase in settled, "the partition is refused, or read")
        assert runtime.health.readiness() == (False, ["partition_refused:notes/1"])
        assert reason in runtime.health.ready_report().body.decode()


@pytest.mark.parametrize(("start", "expected"), [("earliest", [1, 2, 3]), ("latest", [3])])
async def test_new_subscription_begins_where_its_start_says(
    database_url: str, topic_name: str, start: Any, expected: list[int]
) -> None:
    """Also one that was stopped before it had read anything."""
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    await log.create(topic_name, 1)
    await log.publish([noted(topic_name, "a", 1), noted(topic_name, "a", 2)])
    async with running(notebook(settings, topic_name, start=start), log) as runtime:
        if start == "latest":
            await until_settled(runtime, "notes")
    await log.publish([noted(topic_name, "a", 3)])
    async with running(notebook(settings, topic_name, start=start), log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": expected}


def _echoing(settings: Settings, topic: str, before: Any = lambda: None) -> Headrace:
    """A service that echoes what is noted, except for the number 0; nobody reads the echoes."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    class Echoed(Event, type="echoed", topic=f"{topic}-echoes", key="page"):
        page: str

    platform.declare(Echoed)

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, emit: Emit) -> None:
        before()
        if event.number:
            emit(Echoed(page=event.page))

    return platform


async def _take(connection: Any, owner: str) -> Any:
    await enroll(connection, GROUP, "pages", "log", {0: 0})
    return await claim(connection, GROUP, PAGES, owner, log_id="log", log_end=10, suspect_records=1)


async def _was_committed(held: Any, connection: Any) -> bool:
    async with connection.transaction():
        return bool(await held.was_committed(connection, 1))


async def _waits_or_is_done(connection: Any, pid: int, task: asyncio.Task[Any]) -> bool:
    sql = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"
    return task.done() or bool(await connection.fetchval(sql, pid))


async def _is_past(runtime: Runtime, sequence: int) -> bool:
    return bool(await value(runtime, "select sequence > $1 from headrace.claim", sequence))
