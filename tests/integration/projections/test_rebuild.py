"""A projection is built again beside the one in use, and takes its place without a moment of wrong answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel

from headrace import Event, Headrace, Table, sql
from headrace.database.pool import connect
from headrace.engine.pace import Pace
from headrace.errors import ConfigurationError, HandlerError
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.rebuild.rebuild import Rebuilt, rebuild
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.created_again import CreatedAgain
from tests.support.kafka import KafkaServer
from tests.support.platform import execute, fetch, publish, record, running, sample, settings_for, until_settled, value
from tests.support.waiting import until

SKUS = [f"sku-{number}" for number in range(20)]
SPOILT = 1_000_000


class Sold(Event, type="sold", topic="sales", key="sku"):
    sku: str
    price: int = 10


class Total(BaseModel):
    id: str
    sales: int = 0
    revenue: int = 0


class Average(BaseModel):
    """What the code after a change has instead: other columns, and other names for them."""

    id: str
    count: int = 0
    sum: int = 0


def shop(settings: Settings, before: Callable[[Sold], None] = lambda event: None) -> Headrace:
    platform = Headrace("shop", settings)
    totals = platform.projection("totals", Total, key="id", indexes=["revenue"])

    @totals.on(Sold)
    def total(event: Sold, rows: Table[Total]) -> None:
        rows.add("all", sales=1, revenue=event.price)
        rows.add(event.sku, sales=1, revenue=event.price)
        before(event)

    return platform


def changed_shop(settings: Settings) -> Headrace:
    platform = Headrace("shop", settings)

    @platform.projection("totals", Average, key="id").on(Sold)
    def total(event: Sold, rows: Table[Average]) -> None:
        rows.add(event.sku, count=1, sum=event.price)

    return platform


def sold(number: int, price: int = 10) -> NewRecord:
    sku = SKUS[number % len(SKUS)]
    return record("sales", "sold", {"sku": sku, "price": price}, key=sku, id=f"sale-{number}")


@asynccontextmanager
async def session(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(database_url)
    try:
        yield connection
    finally:
        connection.terminate()


async def build(
    runtime: Runtime, platform: Headrace, database_url: str, report: Callable[[int, int], None] = lambda *_: None
) -> Rebuilt:
    """Rebuild the totals with the handlers of a platform, on the log of the one that runs."""
    assert runtime.log is not None
    platform.registry.complete()
    projection = platform.registry.projections["totals"]
    async with session(database_url) as connection:
        return await rebuild(connection, runtime.log, platform.registry, projection, platform.settings, report)


async def totals(runtime: Runtime) -> dict[str, tuple[int, int]]:
    rows = await fetch(runtime, "select id, sales, revenue from projections.totals")
    return {row["id"]: (row["sales"], row["revenue"]) for row in rows}


async def test_rebuild_beside_a_running_service_is_exact(database_url: str) -> None:
    """Writers and readers go on. A spoilt number is seen until the switch and never after it, and nothing is lost."""
    platform = shop(settings_for(database_url))
    async with running(platform, MemoryLog()) as runtime:
        for start in range(0, 6_000, 500):
            await publish(runtime, *(sold(number) for number in range(start, start + 500)))
        await until_settled(runtime, "totals")
        await execute(database_url, f"update projections.totals set revenue = revenue + {SPOILT} where id = 'all'")
        seen: list[tuple[int, bool]] = []
        is_done = asyncio.Event()

        async def read() -> None:
            while not is_done.is_set():
                rows = await totals(runtime)
                sales, revenue = rows.pop("all")
                assert sales == sum(each for each, _ in rows.values()), "a row is ahead of another one"
                assert revenue in (10 * sales, 10 * sales + SPOILT)
                seen.append((sales, revenue != 10 * sales))

        async def write() -> None:
            number = 6_000
            while not is_done.is_set():
                await publish(runtime, *(sold(each) for each in range(number, number + 20)))
                number += 20
                await until(lambda at=number: _has(runtime, at), "they are applied")  # type: ignore[misc]

        reports: list[tuple[int, int]] = []
        others = [asyncio.create_task(read()), asyncio.create_task(write())]
        await until(lambda: bool(seen), "readers read")
        rebuilt = await build(runtime, platform, database_url, lambda *report: reports.append(report))
        await until(lambda: not seen[-1][1], "readers see what was built")
        is_done.set()
        await asyncio.gather(*others)
        await until_settled(runtime, "totals")

        spoilt = [is_spoilt for _, is_spoilt in seen]
        assert spoilt == sorted(spoilt, reverse=True), "the old rows never come back"
        assert spoilt[0] and not spoilt[-1]
        assert [sales for sales, _ in seen] == sorted(sales for sales, _ in seen), "no answer goes back in time"
        all_sales = await value(runtime, "select sum(next_offset) from headrace.claim")
        assert (await totals(runtime))["all"] == (all_sales, 10 * all_sales)
        assert rebuilt.events >= 6_000
        assert reports[0][0] < reports[-1][0] <= reports[-1][1]
        indexes = "select indexname from pg_indexes where schemaname = 'projections' order by 1"
        assert [row[0] for row in await fetch(runtime, indexes)] == ["totals_pkey", "totals_revenue_idx"]


async def test_topic_that_was_created_again_is_not_built_from(database_url: str) -> None:
    """The old rows stay: they are of events that the new topic does not have."""
    log, platform = CreatedAgain(), shop(settings_for(database_url))
    async with running(platform, log) as runtime:
        await publish(runtime, sold(0), sold(1))
        await until_settled(runtime, "totals")
        before = await totals(runtime)
        log.topic_id = "second"
        with pytest.raises(ConfigurationError, match="HEADRACE_LOG does not hold the topic 'sales' that was applied"):
            await build(runtime, platform, database_url)
        assert await totals(runtime) == before
        log.topic_id = "first"
        assert (await build(runtime, platform, database_url)).events == 2


async def test_a_process_shows_how_far_anothers_rebuild_is(database_url: str) -> None:
    """Also until a rebuild has died, and not longer."""
    platform = shop(settings_for(database_url))
    async with running(platform, MemoryLog(), pace=Pace(watch=0.02, gauge=0.02)) as runtime:
        await publish(runtime, *(sold(number) for number in range(6_000)))
        await until_settled(runtime, "totals")
        shown: list[tuple[float, float]] = []

        async def tell_of(done: int, total: int) -> None:
            await dying.execute(sql.projection.TELL_REBUILD, "shop", "totals", done, total)
            await until(lambda: _shown(runtime) == (total - done, done / total), "the process shows it")
            shown.append(_shown(runtime))

        async with session(database_url) as dying:
            assert await dying.fetchval(sql.projection.TRY_REBUILD, "shop.totals")
            await tell_of(1_500, 6_000)
            await tell_of(4_500, 6_000)
        await until(lambda: _shown(runtime) == (0, 0), "nothing is shown of one that has died")
        assert shown == [(4_500, 0.25), (1_500, 0.75)]
        reports: list[tuple[int, int]] = []
        await build(runtime, platform, database_url, lambda *report: reports.append(report))
        told = await fetch(runtime, "select rebuilt_records, rebuild_records from headrace.projection")
        assert tuple(told[0]) == reports[-1]


def _shown(runtime: Runtime) -> tuple[float, float]:
    """Return what is left and the share that is done, as the metrics have it; zeros if they have nothing."""
    left = sample(runtime, "projection_rebuild_remaining_records", projection="totals")
    return left, sample(runtime, "projection_rebuild_ratio", projection="totals")


async def _has(runtime: Runtime, sales: int) -> bool:
    return bool(await value(runtime, "select sales >= $1 from projections.totals where id = 'all'", sales))


async def test_copies_in_the_log_are_applied_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.rebuild.reading.CHUNK_RECORDS", 50)  # a copy is not in the chunk of its event
    platform = shop(settings_for(database_url))
    async with running(platform, MemoryLog()) as runtime:
        for _ in range(3):
            await publish(runtime, *(sold(number) for number in range(100)))
        await until_settled(runtime, "totals")
        before = await totals(runtime)
        await execute(database_url, "update projections.totals set sales = 0, revenue = 0")
        assert (await build(runtime, platform, database_url)).events == 100
        assert await totals(runtime) == before


async def test_what_was_given_up_on_stays_out_until_its_replay(database_url: str) -> None:
    is_mended = False

    def fail(event: Sold) -> None:
        if event.price == 7 and not is_mended:
            raise ValueError("not yet")

    platform = shop(settings_for(database_url, retry_attempts=1), fail)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold(0), sold(0 + len(SKUS), 7), sold(0 + 2 * len(SKUS)))
        await until_settled(runtime, "totals")
        assert (await totals(runtime))["all"] == (2, 20)
        is_mended = True
        await build(runtime, platform, database_url)
        assert (await totals(runtime))["all"] == (2, 20)
        await execute(database_url, "update headrace.dead_letter set decision = 'replay', decided_at = now()")

        async def is_replayed() -> bool:
            return (await totals(runtime))["all"] == (3, 27)

        await until(is_replayed, "the letter is applied")
        await build(runtime, platform, database_url)
        assert (await totals(runtime))["all"] == (3, 27)


async def test_rebuild_waits_for_no_lane_and_says_so(database_url: str) -> None:
    def fail(event: Sold) -> None:
        raise ValueError("not today")

    settings = settings_for(database_url, retry_first_seconds=60.0, retry_max_seconds=60.0)
    platform = shop(settings, fail)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold(0))

        async def is_parked() -> bool:
            return bool(await value(runtime, "select count(*) from headrace.parked"))

        await until(is_parked, "it is parked")
        with pytest.raises(ConfigurationError, match="1 events of 'totals' wait in lanes"):
            await build(runtime, platform, database_url)


async def test_handler_that_raises_leaves_the_old_table(database_url: str) -> None:
    is_broken = False

    def fail(event: Sold) -> None:
        if is_broken and event.price == 7:
            raise ValueError("too cheap")

    platform = shop(settings_for(database_url, partitions=1), fail)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold(0), sold(1, 7))
        await until_settled(runtime, "totals")
        before = await totals(runtime)
        is_broken = True
        with pytest.raises(HandlerError, match=r"total raised ValueError at sales/0/1: too cheap; nothing was changed"):
            await build(runtime, platform, database_url)
        assert await totals(runtime) == before
        tables = "select count(*) from pg_tables where schemaname = 'projections'"
        assert await value(runtime, tables) == 1


async def test_rebuild_that_dies_is_done_again(database_url: str) -> None:
    """Its session ends in the middle; what it leaves behind hinders neither the service nor the next one."""
    platform = shop(settings_for(database_url))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(sold(number) for number in range(3_000)))
        await until_settled(runtime, "totals")
        before = await totals(runtime)
        assert runtime.log is not None
        async with session(database_url) as connection:

            def die(done: int, total: int) -> None:
                if done:
                    connection.terminate()

            projection = platform.registry.projections["totals"]
            with suppress(Exception):
                await rebuild(connection, runtime.log, platform.registry, projection, platform.settings, die)
            assert connection.is_closed()
        assert await totals(runtime) == before
        await execute(database_url, "create view sales_of as select sales from projections.totals")
        with pytest.raises(ConfigurationError, match="other objects, such as views, depend on projections"):
            await build(runtime, platform, database_url)
        await execute(database_url, "drop view sales_of")
        await build(runtime, platform, database_url)
        assert await totals(runtime) == before


async def test_changed_class_is_built_before_its_code_runs(database_url: str) -> None:
    log, settings = MemoryLog(), settings_for(database_url)
    platform, changed = shop(settings), changed_shop(settings)
    async with running(platform, log) as runtime:
        await publish(runtime, *(sold(number) for number in range(100)))
        await until_settled(runtime, "totals")
        await execute(database_url, "grant select on projections.totals to public")
        await build(runtime, changed, database_url)
        granted = "select array_to_string(relacl, ' ') ~ '(^| )=r/' from pg_class where relname = 'totals'"
        assert await value(runtime, granted), "who could read it before still can"
    async with running(changed, log) as runtime:
        await publish(runtime, *(sold(number) for number in range(100, 120)))
        await until_settled(runtime, "totals")
        rows: list[Any] = await fetch(runtime, "select id, count, sum from projections.totals")
        assert sorted(tuple(row) for row in rows) == sorted((sku, 6, 60) for sku in SKUS)


async def test_table_that_was_dropped_is_built_again(database_url: str) -> None:
    log, settings = MemoryLog(), settings_for(database_url)
    async with running(shop(settings), log) as runtime:
        await publish(runtime, *(sold(number) for number in range(100)))
        await until_settled(runtime, "totals")
        before = await totals(runtime)
    await execute(database_url, "drop table projections.totals")
    platform = shop(settings)
    with pytest.raises(
        ConfigurationError, match=r"projections\.totals is gone, .* headrace rebuild MODULE:APP totals\."
    ):
        async with running(platform, log):
            pass
    async with session(database_url) as connection:
        projection = platform.registry.projections["totals"]
        await rebuild(connection, log, platform.registry, projection, settings, lambda *_: None)
    async with running(platform, log) as runtime:
        assert await totals(runtime) == before


async def test_table_of_a_projection_that_never_began_is_made(database_url: str) -> None:
    log, settings = MemoryLog(), settings_for(database_url)
    async with running(shop(settings), log):
        pass
    await execute(database_url, "drop table projections.totals")
    await execute(database_url, "delete from headrace.claim")
    async with running(shop(settings), log) as runtime:
        await publish(runtime, sold(0))
        await until_settled(runtime, "totals")
        assert (await totals(runtime))["all"] == (1, 10)


async def test_two_rebuilds_at_once_are_refused(database_url: str) -> None:
    platform = shop(settings_for(database_url))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold(0))
        await until_settled(runtime, "totals")
        async with session(database_url) as other:
            await other.fetchval("select pg_try_advisory_lock(hashtext('headrace.rebuild'), hashtext('shop.totals'))")
            with pytest.raises(ConfigurationError, match="is being rebuilt by another process"):
                await build(runtime, platform, database_url)


async def test_projection_is_built_again_from_kafka(database_url: str, kafka: KafkaServer, topic_name: str) -> None:
    platform = Headrace("shop", settings_for(database_url, kafka.url))

    class SoldThere(Event, type="sold", topic=topic_name, key="sku"):
        sku: str
        price: int = 10

    projection = platform.projection("totals", Total, key="id")

    @projection.on(SoldThere)
    def total(event: SoldThere, rows: Table[Total]) -> None:
        rows.add(event.sku, sales=1, revenue=event.price)

    async with running(platform) as runtime:
        for start in (0, 50):
            await platform.publish([SoldThere(sku=SKUS[n % 20]) for n in range(start, start + 50)])
        await until_settled(runtime, "totals")
        before = await totals(runtime)
        await execute(database_url, "update projections.totals set sales = 0")
        assert (await build(runtime, platform, database_url)).events == 100
        assert await totals(runtime) == before
