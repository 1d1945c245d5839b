"""Batch handlers on Postgres: one statement for a whole list, and an event that fails or hangs is found in it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from headrace import Event, Headrace, State, States, Transaction
from headrace.engine.pace import Pace
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.obstacles import Gate
from tests.support.platform import execute, fetch, noted, publish, running, settings_for, spread, until_settled
from tests.support.services import Page, has_numbers, noted_numbers
from tests.support.waiting import until

KINDS = ["sync", "async", "transaction"]


def listing(settings: Settings, topic: str, kind: str, act: Callable[[Any], None]) -> tuple[Headrace, list[int]]:
    """Return a service with a batch handler, and a list that takes the lengths of its lists."""
    platform, lengths = Headrace("notebook", settings), list[int]()

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    def note(events: list[Noted], pages: States[Page]) -> None:
        lengths.append(len(events))
        for event in events:
            act(event)
            pages.of(event).numbers.append(event.number)

    async def note_async(events: list[Noted], pages: States[Page]) -> None:
        note(events, pages)

    async def note_in_a_transaction(events: list[Noted], pages: States[Page], tx: Transaction) -> None:
        rows = [(event.page, event.number) for event in events]
        await tx.executemany("insert into noted (page, number) values ($1, $2)", rows)
        note(events, pages)

    handlers: dict[str, Any] = {"sync": note, "async": note_async, "transaction": note_in_a_transaction}
    platform.subscription("notes").on(Noted)(handlers[kind])
    return platform, lengths


@pytest.mark.parametrize("kind", KINDS)
async def test_event_of_a_list_that_raises_parks_its_key_alone(database_url: str, topic_name: str, kind: str) -> None:
    await execute(database_url, "create table noted (page text, number int, unique (page, number))")
    is_broken = True

    def act(event: Any) -> None:
        if is_broken and (event.page, event.number) == ("bad", 2):
            raise ValueError("not yet")

    settings = settings_for(database_url, partitions=1, retry_attempts=1_000)
    platform, lengths = listing(settings, topic_name, kind, act)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "bad", "b"], 20))
        every = list(range(1, 21))
        await until(lambda: has_numbers(runtime, {"a": every, "b": every, "bad": [1]}), "the other keys are applied")
        assert max(lengths) > 20, "one call takes a list"
        is_broken = False
        await until_settled(runtime, "notes")
        assert await noted_numbers(runtime) == {"a": every, "b": every, "bad": every}
        if kind == "transaction":
            assert await _rows(runtime) == {(page, number) for page in ("a", "bad", "b") for number in every}


async def test_row_of_a_list_that_postgres_refuses_parks_its_key_alone(database_url: str, topic_name: str) -> None:
    """The statement is one for the whole list, and aborts the transaction."""
    await execute(database_url, "create table noted (page text, number int check (page <> 'bad'))")
    settings = settings_for(database_url, partitions=1, retry_attempts=1_000)
    platform, _ = listing(settings, topic_name, "transaction", lambda event: None)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "bad", "b"], 5))
        await until(lambda: has_numbers(runtime, {"a": [1, 2, 3, 4, 5], "b": [1, 2, 3, 4, 5]}), "others are applied")
        assert {page for page, _ in await _rows(runtime)} == {"a", "b"}


async def test_event_of_a_list_that_hangs_holds_back_its_key_alone(
    database_url: str, topic_name: str, gate: Gate
) -> None:
    settings = settings_for(database_url, partitions=1, retry_attempts=1_000)
    platform, _ = listing(settings, topic_name, "sync", gate)
    async with running(platform, MemoryLog(), pace=Pace()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "held", "b"], 5))
        await until(lambda: has_numbers(runtime, {"a": [1, 2, 3, 4, 5], "b": [1, 2, 3, 4, 5]}), "others are applied")
        gate.open()
        await until_settled(runtime, "notes")
        assert (await noted_numbers(runtime))["held"] == [1, 2, 3, 4, 5]


async def test_coroutine_of_a_list_that_hangs_holds_back_its_key_alone(database_url: str, topic_name: str) -> None:
    settings = settings_for(database_url, partitions=1, retry_attempts=1_000)
    platform, opened = Headrace("notebook", settings), asyncio.Event()

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    @platform.subscription("notes").on(Noted)
    async def note(events: list[Noted], pages: States[Page]) -> None:
        for event in events:
            if event.page == "held":
                await opened.wait()
            pages.of(event).numbers.append(event.number)

    async with running(platform, MemoryLog(), pace=Pace()) as runtime:
        await publish(runtime, *spread(topic_name, ["a", "held", "b"], 5))
        await until(lambda: has_numbers(runtime, {"a": [1, 2, 3, 4, 5], "b": [1, 2, 3, 4, 5]}), "others are applied")
        opened.set()
        await until_settled(runtime, "notes")
        assert (await noted_numbers(runtime))["held"] == [1, 2, 3, 4, 5]


async def test_kinds_of_handlers_of_one_subscription_keep_the_order(database_url: str, topic_name: str) -> None:
    """A list ends before an event of another handler, whichever way that one is called."""
    platform = Headrace("notebook", settings_for(database_url, partitions=1))
    threads: set[str] = set()

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

    class Thought(Event, type="thought", topic=topic_name, key="page"):
        page: str
        number: int

    notes = platform.subscription("notes")

    @notes.on(Noted)
    def note(events: list[Noted], pages: States[Page]) -> None:
        threads.add(threading.current_thread().name)
        for event in events:
            pages.of(event).numbers.append(event.number)

    @notes.on(Thought)
    async def think(event: Thought, page: State[Page]) -> None:
        page.numbers.append(event.number)

    records = [noted(topic_name, f"page-{number % 3}", number) for number in range(60)]
    for place in (7, 8, 20, 41, 42, 43):
        records[place].headers[:] = [
            (name, b"thought" if name == "ce_type" else value) for name, value in records[place].headers
        ]
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *records)
        await until_settled(runtime, "notes")
        assert await noted_numbers(runtime) == {f"page-{page}": list(range(page, 60, 3)) for page in range(3)}
        assert all(name.startswith("headrace-handlers") for name in threads)


async def _rows(runtime: Runtime) -> set[tuple[str, int]]:
    return {(row["page"], row["number"]) for row in await fetch(runtime, "select page, number from noted")}
