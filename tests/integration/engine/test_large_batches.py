"""A batch that is too much for Postgres, or for the process, is made smaller until it is not; one event is parked."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from pydantic import model_validator

from headrace import Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.settings import DatabaseSettings, Settings
from tests.support.platform import (
    Notes,
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
    until_settled,
    value,
)
from tests.support.services import journal
from tests.support.waiting import until

REFUSE_MANY = """
create function public.refuse_many() returns trigger language plpgsql as $$
begin
    if (select count(*) from written) > {most} then
        raise exception 'out of memory' using errcode = '53200';
    end if;
    return null;
end $$;
create trigger refuse_many after insert on headrace.state referencing new table as written
for each statement execute function public.refuse_many();
"""
"""Makes Postgres run out of memory if a statement writes more than some states."""

BE_SLOW_WITH_MANY = """
create function public.be_slow_with_many() returns trigger language plpgsql as $$
begin
    if (select count(*) from written) > {most} then perform pg_sleep(60); end if;
    return null;
end $$;
create trigger be_slow_with_many after insert on headrace.state referencing new table as written
for each statement execute function public.be_slow_with_many();
"""
"""Makes a statement that writes more than some states too slow."""

BE_SLOW = """
create function public.be_slow() returns trigger language plpgsql as $$
begin
    if new.key = 'slow' then perform pg_sleep(60); end if;
    return new;
end $$;
create trigger be_slow before insert on headrace.state for each row execute function public.be_slow();
"""
"""Makes a single event too slow."""


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_batch_that_is_too_slow_for_postgres_becomes_smaller(
    database_url: str, topic_name: str, kind: str
) -> None:
    """More than forty states do not go in a statement of a quarter of a second."""
    await execute(database_url, BE_SLOW_WITH_MANY.format(most=40))
    settings = _with_statement_timeout(settings_for(database_url, partitions=1, batch_records=200), 0.25)
    platform = journal(settings, topic_name, is_async=kind == "async")
    log = await _filled(topic_name, [noted(topic_name, f"page-{number}", number) for number in range(200)])
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert sample(runtime, "batch_shrunk_total", reason="timeout") >= 2
        assert await value(runtime, "select count(*) from headrace.state") == 200
        assert await value(runtime, "select sum(applied) from headrace.ledger") == 200
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0
        assert sample(runtime, "events_parked_total") == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_batch_that_postgres_has_no_memory_for_becomes_smaller(
    database_url: str, topic_name: str, kind: str
) -> None:
    await execute(database_url, REFUSE_MANY.format(most=20))
    settings = settings_for(database_url, partitions=1, batch_records=200)
    platform = journal(settings, topic_name, is_async=kind == "async")
    log = await _filled(topic_name, [noted(topic_name, f"page-{number}", number) for number in range(200)])
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert sample(runtime, "batch_shrunk_total", reason="memory") >= 4
        assert await value(runtime, "select count(*) from headrace.state") == 200
        assert sample(runtime, "events_parked_total") == 0


async def test_event_that_is_too_slow_alone_is_given_up(database_url: str, topic_name: str) -> None:
    """It is parked after three times, the others are applied, and its retries use up its attempts."""
    await execute(database_url, BE_SLOW)
    settings = _with_statement_timeout(settings_for(database_url, partitions=1, retry_attempts=2), 0.25)
    async with running(notebook(settings, topic_name), MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "slow", 1))
        await until(lambda: sample(runtime, "events_parked_total"), "it is parked")
        assert sample(runtime, "batch_reruns_total", cause="infrastructure") == 3
        await publish(runtime, *(noted(topic_name, page, number) for number in (1, 2) for page in ("a", "b", "slow")))
        await until(lambda: has_pages(runtime, {"a": [1, 2], "b": [1, 2]}), "the others are applied")
        await until_settled(runtime, "notes")
        letters = await fetch(runtime, "select key, reason, error from headrace.dead_letter")
        assert {(letter["key"], letter["reason"]) for letter in letters} == {(b"slow", "gave_up")}
        assert all("statement timeout" in letter["error"] for letter in letters)


@pytest.mark.parametrize("most", [0, 3])
async def test_passing_lack_of_memory_blames_no_event(database_url: str, topic_name: str, most: int) -> None:
    """While Postgres has none at all, the single event that is tried is parked at worst, and none is given up on."""
    await execute(database_url, REFUSE_MANY.format(most=most))
    settings = settings_for(database_url, partitions=1, retry_attempts=1_000)
    async with running(notebook(settings, topic_name), MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, f"page-{number}", 1) for number in range(20)))
        await until(lambda: sample(runtime, "batch_shrunk_total", reason="memory") >= 3, "it became smaller")
        await execute(database_url, "drop trigger refuse_many on headrace.state")
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {f"page-{number}": [1] for number in range(20)}


class Crowd:
    """Counts the events that live; too many are more than the process has memory for."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.alive: dict[int, Any] = {}

    def enter(self, event: Any) -> None:
        if len(self.alive) >= self.most:
            raise MemoryError
        key = id(event)
        self.alive[key] = weakref.ref(event, lambda _: self.alive.pop(key, None))


@pytest.mark.parametrize(("kind", "most"), [("sync", 20), ("async", 20), ("sync", 1)])
async def test_batch_that_is_too_large_to_decode_becomes_smaller(
    database_url: str, topic_name: str, kind: str, most: int
) -> None:
    crowd, platform = Crowd(most), Headrace("notebook", settings_for(database_url, partitions=1))

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

        @model_validator(mode="after")
        def enter(self) -> Noted:
            crowd.enter(self)
            return self

    def note(event: Noted, kept: State[Notes]) -> None:
        kept.numbers.append(event.number)

    async def note_async(event: Noted, kept: State[Notes]) -> None:
        note(event, kept)

    platform.subscription("notes").on(Noted)(note if kind == "sync" else note_async)
    log = await _filled(topic_name, [noted(topic_name, f"page-{number % 7}", number) for number in range(200)])
    async with running(platform, log) as runtime:
        await until_settled(runtime, "notes")
        assert sample(runtime, "batch_shrunk_total", reason="memory") >= 3
        assert await pages(runtime) == {f"page-{page}": list(range(page, 200, 7)) for page in range(7)}
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0


async def test_record_that_memory_never_suffices_for_is_a_dead_letter(database_url: str, topic_name: str) -> None:
    platform = Headrace("notebook", settings_for(database_url, partitions=1))

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str
        number: int

        @model_validator(mode="after")
        def swell(self) -> Noted:
            if self.page == "vast":
                raise MemoryError
            return self

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, kept: State[Notes]) -> None:
        kept.numbers.append(event.number)

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, page, 1) for page in ("a", "vast", "b")))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1], "b": [1]}
        (letter,) = await fetch(runtime, 'select "offset", reason, error from headrace.dead_letter')
        assert (letter["offset"], letter["reason"]) == (1, "decode")
        assert "no memory" in letter["error"]


def _with_statement_timeout(settings: Settings, seconds: float) -> Settings:
    options = DatabaseSettings(idle_in_transaction_seconds=5, statement_timeout_seconds=seconds)
    return settings.model_copy(update={"database_options": options})


async def _filled(topic: str, records: list[NewRecord]) -> MemoryLog:
    """Return a log that has the records from the start, so that they are fetched at once."""
    log = MemoryLog()
    await log.create(topic, 1)
    await log.publish(records)
    return log
