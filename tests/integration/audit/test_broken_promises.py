"""Whatever breaks a promise in the tables is found by the audit, with its place; nothing else is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from headrace import Emit, Event, Headrace, State
from headrace.audit.findings import Report
from headrace.audit.snapshot import compare
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from tests.support.platform import (
    Notes,
    client,
    noted,
    publish,
    record,
    running,
    settings_for,
    until_settled,
    value,
)
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

TOPIC, WINDOW = "audited-pages", 1_000
LAST = "(select sequence from headrace.claim)"
IDS_OF_FIRST = "(select substring(ids for 16) from headrace.ledger where sequence = 1)"


def notebook(settings: Settings) -> Headrace:
    """Return a service that notes the numbers of pages, and emits each; pages `hopeless` fail."""
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=TOPIC, key="page"):
        page: str
        number: int

    class Echoed(Event, type="echoed", topic=f"{TOPIC}-echoes", key="page"):
        page: str

    platform.declare(Echoed)

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, kept: State[Notes], emit: Emit) -> None:
        if event.page == "hopeless":
            raise ValueError("no ink")
        kept.numbers.append(event.number)
        emit(Echoed(page=event.page))

    return platform


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def populated(postgres: PostgresServer) -> AsyncIterator[str]:
    """A database that has seen everything: batches, retries, a replay, emits, open dead letters and a lane."""
    async with postgres.database() as url:
        log, hasty = MemoryLog(), notebook(settings_for(url, partitions=1, retry_attempts=2))
        async with running(hasty, log) as runtime, client(hasty) as http:
            for number in (1, 2, 3):
                await publish(runtime, *(noted(TOPIC, page, number) for page in ("ada", "bob", "cy")))
                await until_settled(runtime, "notes")
            await publish(runtime, noted(TOPIC, "hopeless", 1), record(TOPIC, "noted", "no page", key="odd"))
            await until_settled(runtime, "notes")
            letter = await value(runtime, "select id from headrace.dead_letter where reason = 'gave_up'")
            await http.post(f"/dead-letters/{letter}/replay")
            await until(lambda: value(runtime, "select count(settled_at) from headrace.dead_letter"), "a replay")
            await until_settled(runtime, "notes")
        patient = settings_for(url, partitions=1, retry_first_seconds=3_000, retry_max_seconds=3_000)
        async with running(notebook(patient), log) as runtime:
            await publish(runtime, *(noted(TOPIC, page, 4) for page in ("hopeless", "hopeless", "ada", "bob")))
            await until(lambda: value(runtime, "select count(*) = 2 from headrace.parked"), "two events wait")
        yield url


async def audited(url: str, *statements: str) -> Report:
    """Return what would be found after the statements, which are taken back."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            for statement in statements:
                status = await connection.execute(statement)
                assert not status.endswith(" 0"), statement
            report = await compare(connection, "notebook.notes", WINDOW)
            raise TakenBackError
    except TakenBackError:
        return report
    finally:
        await connection.close()


class TakenBackError(Exception):
    """Ends a transaction that is not to be committed."""


async def test_a_healthy_database_is_clean(populated: str) -> None:
    report = await audited(populated)
    assert report.findings == []
    assert (report.partitions, report.ids) == (1, 14)
    assert report.rows > 8


BROKEN: dict[str, tuple[str, str, str]] = {
    "row missing": ("delete from headrace.ledger where sequence = 2", "offsets", "rows 2 to 2 before it are missing"),
    "row twice": (
        "insert into headrace.ledger select subscription, topic, partition, sequence, kind, epoch, first_offset, "
        "next_offset, applied, skipped, parked, dead, ids, null, committed_at + interval '1 us', marks "
        "from headrace.ledger where sequence = 2",
        "offsets",
        "ledger row 2: is there twice",
    ),
    "gap in offsets": (
        "update headrace.ledger set first_offset = first_offset + 1 where sequence = 2",
        "offsets",
        "ledger row 2: begins at offset 4, but the row before it ends at 3",
    ),
    "retry moves": (
        "update headrace.ledger set next_offset = next_offset + 1 where kind = 1",
        "offsets",
        "goes from offset",
    ),
    "more than there was": (
        "update headrace.ledger set skipped = 9 where sequence = 1",
        "offsets",
        "tells of 12 events between the offsets 0 and 3",
    ),
    "former owner": (
        f"update headrace.ledger set epoch = 1 where sequence = {LAST}; update headrace.ledger set epoch = 2 "
        f"where sequence = {LAST} - 1",
        "offsets",
        "was written in epoch 1, after one of epoch 2",
    ),
    "last row missing": (
        f"delete from headrace.ledger where sequence = {LAST}",
        "offsets",
        "but the last row is",
    ),
    "no row left": ("delete from headrace.ledger", "offsets", "but the last row is missing"),
    "claim behind": ("update headrace.claim set sequence = sequence - 1", "offsets", "but the last row is"),
    "claim elsewhere": (
        "update headrace.claim set next_offset = next_offset + 1",
        "offsets",
        "the claim is at offset 16, but the ledger ends at 15",
    ),
    "claim of an old epoch": ("update headrace.claim set epoch = 1", "offsets", "the claim is of epoch 1, but"),
    "read ahead": ("update headrace.claim set last_offset = 15", "offsets", "but has read offset 15"),
    "id twice": (
        f"update headrace.ledger set ids = overlay(ids placing {IDS_OF_FIRST} from 1 for 16) where sequence = 3",
        "ids",
        "is 2 times in the ledger rows 1 to 3",
    ),
    "id lost": (
        "update headrace.ledger set ids = substring(ids from 17), marks = null where sequence = 3",
        "ids",
        "ledger row 3: applied and parked 3 events, but has 2 ids",
    ),
    "id of nothing": (
        f"update headrace.ledger set ids = {IDS_OF_FIRST}, marks = null where kind = 2 and parked = 0 or sequence = "
        "(select min(sequence) from headrace.ledger where kind = 1 and applied + dead = 0)",
        "ids",
        "tells of 0 events, but has 1 ids",
    ),
    "ids torn": ("update headrace.ledger set ids = ids || 'x' where sequence = 1", "ids", "has 49 bytes of ids"),
    "marks torn": ("update headrace.ledger set marks = marks || 'x' where sequence = 1", "ids", "37 bytes of marks"),
    "marked without a row": (
        "update headrace.claim set emitted_through = sequence + 1",
        "emits",
        "emits are marked up to ledger row",
    ),
    "never marked": (
        "update headrace.claim set emitted_through = 0, owner = 'me', claimed_at = now() - interval '1 hour'; "
        "update headrace.ledger set committed_at = committed_at - interval '11 minutes'",
        "emits",
        "the emits of ledger row 1 are not marked after 0:11:",
    ),
    "lane without events": ("delete from headrace.parked", "lanes", "the lane of 'hopeless' holds no event"),
    "events without a lane": ("delete from headrace.lane", "lanes", "parked events of 'hopeless' (2) have no lane"),
    "parked event lost": (
        "delete from headrace.parked where number = (select min(number) from headrace.parked)",
        "lanes",
        "4 events have entered lanes and 2 left, but 1 wait",
    ),
    "parked ahead": (
        'update headrace.parked set "offset" = 99 where number = (select max(number) from headrace.parked)',
        "lanes",
        "at offset 99 waits in a lane, but the claim is at 15",
    ),
    "parked nowhere": (
        "update headrace.parked set topic = 'gone'",
        "lanes",
        "waits in a lane, but its partition has no claim",
    ),
    "overtaken": (
        "update headrace.parked set number = 100 - number",
        "lanes",
        "at offset 11 waits behind that of 12",
    ),
    "dead ahead": (
        "update headrace.dead_letter set \"offset\" = 77 where reason = 'schema'",
        "lanes",
        "the event at offset 77 was given up on, but the claim is at 15",
    ),
    "dead and waiting": (
        "update headrace.dead_letter set \"offset\" = 11 where reason = 'schema'",
        "lanes",
        "the open dead letter of offset 11 waits in a lane as well",
    ),
    "dead twice": (
        'update headrace.dead_letter set "offset" = 10 where decision is null',
        "lanes",
        "the open dead letter of offset 10 is there more than once",
    ),
    "state without a version": (
        "update headrace.state set version = 0 where key = 'ada'",
        "states",
        "notes of 'ada' has version 0",
    ),
    "state without a value": ("update headrace.state set data = 'null' where key = 'ada'", "states", "notes of 'ada'"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_promise_is_found(populated: str, name: str) -> None:
    statements, check, expected = BROKEN[name]
    report = await audited(populated, *statements.split("; "))
    found = [finding for finding in report.findings if finding.check == check]
    assert any(expected in finding.detail for finding in found), report.findings
    assert all(finding.advice for finding in report.findings)
