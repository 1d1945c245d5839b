"""A dry run tells what today's code would make of yesterday's events, and touches nothing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel

from headrace import Event, Headrace, State, States, Transaction, keep, upcast
from headrace.errors import ConfigurationError
from headrace.loading import find_platform, load_app
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, TopicPartition
from headrace.rewind.difference import Changed, Emits
from headrace.rewind.plan import Target
from headrace.settings import Settings
from tests.integration.rewind.support import rehearsed
from tests.support.command import Said, headrace
from tests.support.kafka import KafkaServer
from tests.support.platform import (
    execute,
    publish,
    record,
    running,
    settings_for,
    until_settled,
    value,
)
from tests.support.waiting import until


class Sold(Event, type="sold", topic="sales", key="sku"):
    sku: str
    price: int


class Booked(Event, type="booked", topic="books", key="sku"):
    sku: str
    price: int


class Sales(BaseModel):
    revenue: int = 0
    sales: int = 0


def shop(
    settings: Settings,
    *,
    rate: int = 1,
    poison: tuple[int, ...] = (),
    silent: bool = False,
    before: Callable[[], None] = lambda: None,
) -> Headrace:
    """Return a service that adds prices up, times a rate, and emits them; `before` runs first."""
    platform = Headrace("shop", settings)
    platform.declare(Booked)

    @platform.subscription("sales", attempts=1).on(Sold)
    def add(event: Sold, kept: State[Sales]) -> list[Booked]:
        before()
        kept.revenue += event.price * rate
        kept.sales += 1
        if event.price in poison:
            raise ValueError(f"no price of {event.price}")
        return [] if silent else [Booked(sku=event.sku, price=event.price * rate)]

    return platform


def sold(sku: str, price: int) -> NewRecord:
    return record("sales", "sold", {"sku": sku, "price": price}, key=sku, id=f"{sku}-{price}")


async def test_the_same_code_makes_no_difference(database_url: str) -> None:
    settings = settings_for(database_url, partitions=2)
    async with running(shop(settings), MemoryLog()) as runtime:
        await publish(runtime, *(sold(sku, price) for price in range(1, 30) for sku in "abc"))
        await publish(runtime, sold("a", 1), sold("b", 2))  # duplicates
        await until_settled(runtime, "sales")
        found = await rehearsed(runtime, database_url, shop(settings))
        assert found.is_empty
        assert (found.events, found.keys, found.emits) == (87, 3, Emits(87, 0, 0, 0))
        assert (await rehearsed(runtime, database_url, shop(settings), Target(at=datetime.now(UTC)))).events == 0


async def test_each_difference_is_told(database_url: str) -> None:
    """States with before and after, events that fail now, those that failed then, and what would be emitted."""
    settings = settings_for(database_url, partitions=1)
    async with running(shop(settings, poison=(7,)), MemoryLog()) as runtime:
        await publish(runtime, sold("a", 5), sold("a", 7), sold("b", 3), sold("c", 0))
        await until_settled(runtime, "sales")
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 1
        found = await rehearsed(runtime, database_url, shop(settings, rate=2, poison=(3,)))
        assert found.changes == [
            Changed("sales", "a", {"revenue": 5, "sales": 1}, {"revenue": 24, "sales": 2}),
            Changed("sales", "b", {"revenue": 3, "sales": 1}, None),
        ]
        assert (found.changed, found.raised, found.mended) == (2, 1, 1)
        (raised,) = found.raises
        assert tuple(raised) == ("sales", 0, 2, "b", "add raised ValueError: no price of 3")
        assert found.emits == Emits(compared=2, changed=1, added=1, missing=1)
        assert (await rehearsed(runtime, database_url, shop(settings, poison=(7,)))).is_empty
        silent = await rehearsed(runtime, database_url, shop(settings, poison=(7,), silent=True))
        assert (silent.changed, silent.emits) == (0, Emits(missing=3))


async def test_since_a_time_only_keys_with_later_events_are_run(database_url: str) -> None:
    """Their states begin at the beginning; what was given up on before stays out, as in a rewind."""
    settings = settings_for(database_url, partitions=1)
    async with running(shop(settings, poison=(7,)), MemoryLog()) as runtime:
        await publish(runtime, sold("a", 7), sold("a", 1), sold("b", 2))
        await until_settled(runtime, "sales")
        since = datetime.now(UTC) + timedelta(milliseconds=2)
        await until(lambda: datetime.now(UTC) > since, "the clock has moved on")
        await publish(runtime, sold("a", 3))
        await until_settled(runtime, "sales")
        found = await rehearsed(runtime, database_url, shop(settings, rate=10), Target(at=since))
        assert found.changes == [Changed("sales", "a", {"revenue": 4, "sales": 2}, {"revenue": 40, "sales": 2})]
        assert (found.events, found.keys, found.offsets, found.mended) == (2, 1, 1, 0)
        assert found.emits == Emits(compared=1, changed=1)


async def test_what_was_discarded_stays_out(database_url: str) -> None:
    settings = settings_for(database_url, partitions=1)
    async with running(shop(settings, poison=(7,)), MemoryLog()) as runtime:
        await publish(runtime, sold("a", 7), sold("a", 1))
        await until_settled(runtime, "sales")
        await execute(database_url, "update headrace.dead_letter set decision = 'discard', decided_at = now()")
        assert (await rehearsed(runtime, database_url, shop(settings))).is_empty


async def test_a_class_that_has_grown_makes_no_difference(database_url: str) -> None:
    settings = settings_for(database_url, partitions=1)
    grown = Headrace("shop", settings)
    grown.declare(Booked)

    class Sales(BaseModel):
        revenue: int = 0
        sales: int = 0
        currency: str = "EUR"

    @grown.subscription("sales").on(Sold)
    def add(event: Sold, kept: State[Sales]) -> Booked:
        kept.revenue += event.price
        kept.sales += 1
        return Booked(sku=event.sku, price=event.price)

    async with running(shop(settings), MemoryLog()) as runtime:
        await publish(runtime, sold("a", 7), sold("a", 1))
        await until_settled(runtime, "sales")
        assert (await rehearsed(runtime, database_url, grown)).is_empty


async def test_a_list_of_events_and_an_older_class_are_run(database_url: str) -> None:
    """An event that fails is found in its list; a state of an older version of its class is brought up."""
    settings = settings_for(database_url, partitions=1)
    newer = Headrace("shop", settings)
    newer.declare(Booked)

    @keep(version=2)
    class Sales(BaseModel):
        total: int = 0

    @upcast(Sales, version=1)
    def renamed(value: dict[str, Any]) -> dict[str, Any]:
        return {"total": value["revenue"]}

    @newer.subscription("sales").on(Sold)
    def add(events: list[Sold], kept: States[Sales]) -> None:
        for event in events:
            if event.price == 3:
                raise ValueError("no price of 3")
            kept.of(event).total += event.price

    async with running(shop(settings), MemoryLog()) as runtime:
        await publish(runtime, *(sold(sku, price) for price in (1, 2, 3, 4) for sku in "ab"))
        await until_settled(runtime, "sales")
        found = await rehearsed(runtime, database_url, newer)
        assert found.changes == [Changed("sales", key, {"revenue": 10, "sales": 4}, {"total": 7}) for key in ("a", "b")]
        assert [each.offset for each in found.raises] == [4, 5]
        assert found.emits == Emits(missing=8)


async def test_what_cannot_be_seen_is_refused(database_url: str) -> None:
    settings = settings_for(database_url, partitions=1)
    platform = shop(settings)

    @platform.subscription("own").on(Sold)
    async def write(event: Sold, tx: Transaction) -> None: ...

    @keep(ttl=60)
    class Visits(BaseModel):
        number: int = 0

    @platform.subscription("visits").on(Sold)
    def visit(event: Sold, visits: State[Visits]) -> None: ...

    async with running(platform, MemoryLog()) as runtime:
        with pytest.raises(ConfigurationError, match="'own': write takes a Transaction, and a dry run lends none"):
            await rehearsed(runtime, database_url, platform, name="own")
        with pytest.raises(ConfigurationError, match="'visits': states of Visits expire, and the log does not tell"):
            await rehearsed(runtime, database_url, platform, name="visits")


async def test_a_service_that_goes_on_is_compared_in_one_snapshot(database_url: str) -> None:
    """It applies further events of the same keys while the handlers run dry."""
    entered, opened = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert opened.wait(60)

    settings = settings_for(database_url, partitions=2)
    async with running(shop(settings), MemoryLog()) as runtime:
        await publish(runtime, *(sold(sku, 1) for sku in "abcd"))
        await until_settled(runtime, "sales")
        task = asyncio.create_task(rehearsed(runtime, database_url, shop(settings, before=wait)))
        await until(entered.is_set, "a handler runs dry")
        await publish(runtime, *(sold(sku, 2) for sku in "abcd"))
        await until_settled(runtime, "sales")
        opened.set()
        found = await task
        assert (found.is_empty, found.events) == (True, 8)


APP = """
from fastapi import FastAPI
from headrace import Event, Headrace, State
from pydantic import BaseModel

events = Headrace("small")

class Noted(Event, type="noted", topic="{topic}", key="page"):
    page: str
    number: int

class Notes(BaseModel):
    total: int = 0

@events.subscription("notes").on(Noted)
def note(event: Noted, notes: State[Notes]) -> None:
    notes.total += event.number * {rate}

app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
"""


@pytest.mark.parametrize("log", ["kafka", "embedded"])
async def test_the_command_touches_nothing(
    database_url: str, kafka: KafkaServer, topic_name: str, tmp_path: Path, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole database and the ends of the topic are the same afterwards; the exit code says what it found."""
    url = kafka.url if log == "kafka" else "embedded"
    for name, rate in (("then", 1), ("now", 2)):
        (tmp_path / f"{name}_{log}.py").write_text(APP.format(topic=topic_name, rate=rate))
    monkeypatch.syspath_prepend(tmp_path)
    platform = find_platform(load_app(f"then_{log}:app"))
    monkeypatch.setattr(platform, "_settings", settings_for(database_url, url))
    settings = {"HEADRACE_LOG": url, "HEADRACE_DATABASE": database_url}

    async def replayed(app: str, *words: str) -> Said:
        command = ("replay", f"{app}_{log}:app", "--subscription", "notes", *words)
        return await headrace(tmp_path, *command, settings=settings)

    async with running(platform) as runtime:
        await publish(runtime, *(noted(topic_name, page, number) for number in (1, 2) for page in "abc"))
        await until_settled(runtime, "notes")
        places = [TopicPartition(topic_name, number) for number in range(3)]
        assert runtime.log is not None
        ends = await runtime.log.bounds(places)
    before = await everything(database_url)
    same = await replayed("then", "--dry-run")
    assert (same.code, same.out.splitlines()[-1]) == (0, "nothing would be different"), same.err
    other = await replayed("now", "--dry-run", "--since", "1h")
    assert other.code == 3 and '    notes a: {"total": 3} -> {"total": 6}\n' in other.out, other.err
    assert other.out.startswith("small.notes: 6 events of 3 keys ran, 6 offsets are in question\n")
    shown = await replayed("now", "--dry-run", "--json", "--fail-on", "raise")
    answer: dict[str, Any] = json.loads(shown.out)
    assert (shown.code, answer["changed"]["count"], answer["raises"]["count"]) == (0, 3, 0)
    assert answer["changed"]["first"][0] == {
        "state": "notes",
        "key": "a",
        "before": {"total": 3},
        "after": {"total": 6},
    }
    wet = await replayed("now")
    assert wet.code == 1 and f"run headrace rewind now_{log}:app notes" in wet.err
    assert await everything(database_url) == before
    async with running(platform) as runtime:
        assert runtime.log is not None
        assert await runtime.log.bounds(places) == ends


def noted(topic: str, page: str, number: int) -> NewRecord:
    return record(topic, "noted", {"page": page, "number": number}, key=page)


async def everything(database_url: str) -> dict[str, list[str]]:
    """Return every row and the place of every sequence of the database."""
    async with session(database_url) as connection:
        tables = await connection.fetch(
            "select format('%I.%I', schemaname, tablename) from pg_tables "
            "where schemaname not in ('pg_catalog', 'information_schema')"
        )
        found = {}
        for (table,) in tables:
            rows = await connection.fetch(f"select t::text from {table} t order by 1")
            found[table] = [row[0] for row in rows]
        places = await connection.fetch("select sequencename || ' ' || last_value from pg_sequences order by 1")
        return found | {"sequences": [row[0] for row in places]}


@asynccontextmanager
async def session(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()
