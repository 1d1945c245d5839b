"""Slow handlers and slow statements: batches become shorter, and only an event that takes too long is parked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from headrace import Event, Headrace, State, Transaction
from headrace.engine.pace import Pace
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.runtime import Runtime
from headrace.settings import DatabaseSettings
from tests.support.platform import (
    fetch,
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
from tests.support.services import (
    Page,
    echoing,
    has_numbers,
    noted_numbers,
    noting_in_a_transaction,
)
from tests.support.waiting import until


async def test_statement_that_times_out_parks_its_event_alone(database_url: str, topic_name: str) -> None:
    """The handler gives it too little time. To the driver it looks as if Postgres did not answer."""

    async def act(transaction: Transaction) -> None:
        await transaction.execute("select pg_sleep(10)", timeout=0.05)

    platform = noting_in_a_transaction(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name, act)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "bad", "b"], 2))
        await until(lambda: has_numbers(runtime, {"a": [1, 2], "b": [1, 2]}), "the other keys are applied")
        assert sorted(await _parked(runtime)) == ["behind_key", "data_refused"]
        await publish(runtime, *spread(topic_name, ["a", "bad", "b"], 1))
        await until(
            lambda: has_numbers(runtime, {"a": [1, 2, 1], "b": [1, 2, 1]}), "they flow on while it is tried again"
        )


async def test_handlers_may_outlast_the_limit_for_silent_sessions(database_url: str, topic_name: str) -> None:
    """All handlers of a batch together take longer than Postgres gives a session that says nothing."""
    settings = settings_for(database_url, partitions=1)
    options = DatabaseSettings(idle_in_transaction_seconds=0.3)
    platform = Headrace("notebook", settings.model_copy(update={"database_options": options}))

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    class Thought(Event, type="thought", topic=topic_name, key="page"):
        page: str

    notes = platform.subscription("notes")

    @notes.on(Thought)
    async def ask(event: Thought, transaction: Transaction) -> None:
        await transaction.execute("select 1")

    @notes.on(Noted)
    def note(event: Noted, page: State[Page]) -> None:
        time.sleep(0.1)
        page.numbers.append(event.number)

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, f"page-{number}", number) for number in range(8)))
        await until_settled(runtime, "notes")
        assert await noted_numbers(runtime) == {f"page-{number}": [number] for number in range(8)}
        assert sample(runtime, "batch_reruns_total") == 0, "Postgres ended a session in which a handler was thinking"


async def test_slow_handlers_make_short_batches(database_url: str, topic_name: str) -> None:
    """250 events of 20 ms are five seconds of work; a batch holds its locks for about two."""
    platform = notebook(settings_for(database_url, partitions=1), topic_name, before=lambda event: time.sleep(0.02))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, f"page-{number % 7}", number) for number in range(250)))
        await until_settled(runtime, "notes")
        sizes = await _batches(runtime)
        assert sum(sizes) == 250
        assert max(sizes) <= 110, sizes
        assert len(sizes) <= 30, f"{sizes}: so short that commits are all it does"
        found = await pages(runtime)
        assert found == {f"page-{page}": list(range(page, 250, 7)) for page in range(7)}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_batch_that_is_cut_short_keeps_every_outcome_and_emit(
    database_url: str, topic_name: str, kind: str
) -> None:
    """Cut after every few events, in batches and in lanes, with duplicates, unreadable records and failures between."""
    broken = True

    def fail(event: Any) -> None:
        time.sleep(0.003)
        if broken and event.page == "bad":
            raise ValueError("not yet")

    platform = echoing(settings_for(database_url, partitions=1, retry_attempts=1_000), topic_name, fail, kind)
    records = [noted(topic_name, page, number, id=f"{page}/{number}") for number in range(40) for page in ("a", "bad")]
    for place in range(0, 80, 5):  # sixteen places: a duplicate, and behind it what is no event
        records[place * 7 // 5 : place * 7 // 5 + 1] = [
            records[place * 7 // 5],
            records[place * 7 // 5],
            NewRecord(topic_name, b"a", b"not an event", []),
        ]
    log = MemoryLog()
    async with running(platform, log, pace=Pace(target=0.02)) as runtime:
        await publish(runtime, *records)
        await until(lambda: has_numbers(runtime, {"a": list(range(40))}), "the other key is applied")
        broken = False
        await until_settled(runtime, "notes", "echoes")
        assert await noted_numbers(runtime) == {"a": list(range(40)), "bad": list(range(40))}
        assert sorted((await noted_numbers(runtime, "echoes"))["all"]) == sorted([*range(40), *range(40)])
        row = (await fetch(runtime, LEDGER))[0]
        assert tuple(map(int, row)) == (len(records), 40, 16, 40, 16)
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 16
        assert await value(runtime, "select count(*) from headrace.ledger where kind = 1 and applied > 0") > 1
    async with running(platform, log, pace=Pace(target=0.02)) as runtime:
        await publish(runtime, *records[:10])
        await until_settled(runtime, "notes", "echoes")
        assert await noted_numbers(runtime) == {"a": list(range(40)), "bad": list(range(40))}


LEDGER = (
    "select sum(next_offset - first_offset), sum(applied), sum(skipped), sum(parked), sum(dead) "
    "from headrace.ledger where kind = 0 and subscription = 'notebook.notes'"
)


async def test_coroutine_that_never_ends_is_parked_after_its_time(database_url: str, topic_name: str) -> None:
    """It costs the other events no more than that time."""
    settings = settings_for(database_url, partitions=1, retry_attempts=1, batch_seconds=0.2)
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    async def note(event: Noted, page: State[Page]) -> None:
        page.numbers.append(event.number)
        if event.page.startswith("bad"):
            await asyncio.Event().wait()

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "bad-1", "b", "bad-2", "c"], 1))
        await until_settled(runtime, "notes")
        assert await noted_numbers(runtime) == {"a": [1], "b": [1], "c": [1]}
        letters = await fetch(runtime, "select key, error from headrace.dead_letter")
        assert {row["key"] for row in letters} == {b"bad-1", b"bad-2"}
        assert all("TimeoutError" in row["error"] for row in letters)


async def _parked(runtime: Runtime) -> list[str]:
    return [row["reason"] for row in await fetch(runtime, "select reason from headrace.parked order by number")]


async def _batches(runtime: Runtime) -> list[int]:
    rows = await fetch(
        runtime, "select next_offset - first_offset as size from headrace.ledger where kind = 0 order by sequence"
    )
    return [row["size"] for row in rows]
