"""What a new owner reads from the ledger, and how its claim waits for the one before it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

import asyncpg
import psycopg
import pytest

from headrace.emits.relay import Relay
from headrace.engine.claim import claim, enroll, known_partitions
from headrace.handlers.subscription import Subscription
from headrace.ledger.rows import Kind, Row, insert_row, pack_emits, pack_marks, read_unmarked
from headrace.ledger.window import FEW_ROWS, read_window, window_of
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, TopicInfo, TopicPartition
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.tracing import Tracing
from tests.support.waiting import until

PAGES = TopicPartition("pages", 0)
INFO = TopicInfo("pages", 1, "log")
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
        held = await claim(
            connection, GROUP, PAGES, "you", info=INFO._replace(log_id="other"), log_end=10, suspect_records=1
        )
        assert held.log_id == await connection.fetchval("select log_id from headrace.claim") == "log"
        await connection.execute("update headrace.claim set log_id = null")
        held = await claim(
            connection, GROUP, PAGES, "you", info=INFO._replace(log_id="other"), log_end=10, suspect_records=1
        )
        assert held.log_id == await connection.fetchval("select log_id from headrace.claim") == "other"


async def test_known_partitions_are_those_of_the_topic(pool: asyncpg.Pool) -> None:
    """Those of other topics and groups do not count, and a second enrolment moves nothing."""
    async with pool.acquire() as connection:
        await enroll(connection, GROUP, INFO, {0: 5, 1: 6, 2: 7})
        await enroll(connection, GROUP, TopicInfo("others", 1, "log"), {0: 0})
        await enroll(connection, "shop.wallets", INFO, dict.fromkeys(range(9), 0))
        assert await known_partitions(connection, GROUP, "pages") == (3, "log")
        assert await known_partitions(connection, GROUP, "unknown") == (0, None)
        await enroll(connection, GROUP, INFO, {0: 0, 1: 0, 2: 0})
        sql = "select next_offset from headrace.claim where subscription = $1 and topic = 'pages' order by partition"
        assert [row["next_offset"] for row in await connection.fetch(sql, GROUP)] == [5, 6, 7]


async def _take(connection: Any, owner: str) -> Any:
    await enroll(connection, GROUP, INFO, {0: 0})
    return await claim(connection, GROUP, PAGES, owner, info=INFO, log_end=10, suspect_records=1)


async def _was_committed(held: Any, connection: Any) -> bool:
    async with connection.transaction():
        return bool(await held.was_committed(connection, 1))


async def _waits_or_is_done(connection: Any, pid: int, task: asyncio.Task[Any]) -> bool:
    sql = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"
    return task.done() or bool(await connection.fetchval(sql, pid))


async def test_owner_that_is_frozen_amid_a_statement_keeps_no_claim(pool: asyncpg.Pool, database_url: str) -> None:
    """It has asked for a statement's description and sends no arguments: to Postgres that is no idle transaction."""
    async with pool.acquire() as connection:
        await enroll(connection, GROUP, INFO, {0: 0})
        await connection.execute("set application_name = 'headrace'")
        await connection.execute("set lock_timeout = '100ms'")
        await connection.execute("set idle_in_transaction_session_timeout = '10min'")
        with closing(psycopg.connect(database_url, options="-c application_name=headrace")) as frozen:
            frozen.execute("set idle_in_transaction_session_timeout = '50ms'; commit")
            frozen.execute("select from headrace.claim for update")
            frozen.pgconn.enter_pipeline_mode()
            frozen.pgconn.send_prepare(b"", b"select 1")
            frozen.pgconn.send_flush_request()
            assert frozen.pgconn.flush() == 0
            with pytest.raises(asyncpg.LockNotAvailableError):
                await _claim(connection)  # it is silent, but not for long yet
            await connection.execute("set idle_in_transaction_session_timeout = '100ms'")

            async def is_claimed() -> bool:
                with suppress(asyncpg.LockNotAvailableError):
                    await _claim(connection)
                    return True
                return False

            await until(is_claimed, "the claim is taken")
        assert await connection.fetchval("select owner from headrace.claim") == "heir"


async def _claim(connection: Any) -> None:
    await claim(connection, GROUP, PAGES, "heir", info=INFO, log_end=0, suspect_records=1)
