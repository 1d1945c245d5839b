"""Rows of a projection commit with the batch of their events, exactly once, and are asked for over HTTP."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, Literal

import httpx
import pytest
import pytest_asyncio
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import create_async_engine

from headrace import Envelope, Event, Headrace, State, Table
from headrace.errors import ConfigurationError
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, position_text
from headrace.projections.projection import Projection
from headrace.settings import Settings
from tests.support.platform import execute, fetch, publish, record, running, settings_for, until_settled, value
from tests.support.postgres_proxy import PostgresProxy
from tests.support.routes import application, caller

SKUS = ["a", "b", "c"]
DAY = datetime(2026, 1, 2, tzinfo=UTC)


class Sold(Event, type="sold", topic="sales", key="sku"):
    sku: str
    number: int
    price: int = 10


class Closed(Event, type="closed", topic="sales", key="sku"):
    sku: str


class Sale(BaseModel):
    """A row for each sale: several of a key of the log."""

    sku: str
    number: int
    price: int
    status: Literal["open", "closed"] = "open"
    note: str | None = None
    tags: list[str] = []
    sold_at: datetime | None = None


class Total(BaseModel):
    """A row that events of every partition add to."""

    id: str
    sales: int = 0
    revenue: int = 0


class Seen(BaseModel):
    count: int = 0


def shop(
    settings: Settings, before: Callable[[Any], None] = lambda event: None
) -> tuple[Headrace, Projection, Projection]:
    platform = Headrace("shop", settings)
    sales = platform.projection("sales", Sale, key=("sku", "number"), indexes=["price"])
    totals = platform.projection("totals", Total, key="id")

    @sales.on(Sold)
    def sell(event: Sold, envelope: Envelope, rows: Table[Sale]) -> None:
        rows.put(
            Sale(sku=event.sku, number=event.number, price=event.price, tags=["new"], sold_at=envelope.time or DAY)
        )
        before(event)

    @sales.on(Closed)
    def close(event: Closed, rows: Table[Sale]) -> None:
        rows.change(event.sku, 1, status="closed", note="done")
        rows.delete(event.sku, 2)

    @totals.on(Sold)
    def total(event: Sold, rows: Table[Total]) -> None:
        rows.add("all", sales=1, revenue=event.price)
        rows.add(event.sku, sales=1, revenue=event.price)

    @platform.subscription("seen").on(Sold)
    def see(event: Sold, seen: State[Seen]) -> None:
        seen.count += 1
        before(event)

    return platform, sales, totals


def sold(sku: str, number: int, price: int = 10) -> NewRecord:
    return record("sales", "sold", {"sku": sku, "number": number, "price": price}, key=sku, id=f"{sku}-{number}")


@pytest_asyncio.fixture
async def client(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service with nine sales."""
    platform, sales, totals = shop(settings_for(database_url))
    app = application(platform)
    app.include_router(sales.router())
    app.include_router(totals.router())
    async with running(platform, MemoryLog()) as runtime, caller(app) as opened:
        await publish(runtime, *(sold(sku, number, number * 10) for number in (1, 2, 3) for sku in SKUS))
        await until_settled(runtime, "sales", "totals")
        yield opened


async def totals_of(runtime: Any) -> dict[str, tuple[int, int]]:
    rows = await fetch(runtime, "select id, sales, revenue from projections.totals")
    return {row["id"]: (row["sales"], row["revenue"]) for row in rows}


async def test_rows_are_put_changed_added_to_and_deleted(database_url: str) -> None:
    platform, _, _ = shop(settings_for(database_url))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(sold(sku, number) for number in (1, 2, 3) for sku in SKUS))
        await publish(runtime, record("sales", "closed", {"sku": "b"}, key="b"))
        await until_settled(runtime, "sales", "totals")
        rows = await fetch(runtime, "select sku, number, status, note, tags::text from projections.sales order by 1, 2")
        assert [tuple(row) for row in rows if row["sku"] == "b"] == [
            ("b", 1, "closed", "done", '["new"]'),
            ("b", 3, "open", None, '["new"]'),
        ]
        assert len(rows) == 8
        assert await totals_of(runtime) == {"all": (9, 90)} | dict.fromkeys(SKUS, (3, 30))
        indexes = "select indexname from pg_indexes where tablename = 'sales' order by 1"
        assert [row[0] for row in await fetch(runtime, indexes)] == ["sales_pkey", "sales_price_idx"]


async def test_event_that_fails_writes_no_row(database_url: str) -> None:
    def fail(event: Sold) -> None:
        if event.number == 2:
            raise ValueError("behind the put")

    platform, _, _ = shop(settings_for(database_url, retry_attempts=2), fail)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(sold(sku, number) for number in (1, 2, 3) for sku in SKUS))
        await until_settled(runtime, "sales", "totals", "seen")
        rows = await fetch(runtime, "select sku, number from projections.sales order by 1, 2")
        assert [tuple(row) for row in rows] == [(sku, number) for sku in SKUS for number in (1, 3)]


async def test_batches_that_lose_their_commit_count_once(database_url: str) -> None:
    async with PostgresProxy(database_url) as proxy:
        platform, _, _ = shop(settings_for(proxy.url, partitions=1))
        async with running(platform, MemoryLog()) as runtime:
            for number in range(1, 7):
                if number % 2:
                    proxy.drop_commit()
                else:
                    proxy.drop_answer_to_commit()
                await publish(runtime, *(sold(sku, number) for sku in SKUS))
                await until_settled(runtime, "sales", "totals", "seen")
            assert proxy.cuts == 6
            assert await totals_of(runtime) == {"all": (18, 180)} | dict.fromkeys(SKUS, (6, 60))


async def test_partitions_add_to_one_row(database_url: str) -> None:
    """Every batch of three partitions locks the same row; none is lost, and none is counted twice."""
    platform, _, _ = shop(settings_for(database_url, partitions=3))
    async with running(platform, MemoryLog()) as runtime:
        for _ in range(5):
            await publish(runtime, *(sold(f"sku-{number % 20}", number) for number in range(100)))
        await until_settled(runtime, "totals")
        assert (await totals_of(runtime))["all"] == (100, 1_000), "the copies are recognised"


async def test_value_that_postgres_refuses_parks_its_event(database_url: str) -> None:
    platform, _, _ = shop(settings_for(database_url, retry_attempts=1, partitions=1))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold("a", 1), sold("b", 2**70), sold("c", 1))
        await until_settled(runtime, "sales", "seen")
        rows = await fetch(runtime, "select sku from projections.sales order by 1")
        assert [row["sku"] for row in rows] == ["a", "c"]
        assert await value(runtime, "select count(*) from headrace.dead_letter where subscription = 'shop.sales'") == 1


async def test_rows_are_filtered_sorted_and_paged(client: httpx.AsyncClient) -> None:
    answer = await client.get("/sales?sku=b&sort=-price")
    assert answer.status_code == 200
    assert [row["price"] for row in answer.json()["rows"]] == [30, 20, 10]
    assert answer.json()["rows"][0]["tags"] == ["new"]
    assert datetime.fromisoformat(answer.json()["rows"][0]["sold_at"]) == DAY
    assert (await client.get("/sales", params={"sold_at_to": "2026-01-01T00:00:00Z"})).json()["rows"] == []
    assert len((await client.get("/sales?price_from=20&price_to=20")).json()["rows"]) == 3
    for sort in ("price", "-price", "sku", "-number"):
        seen, token = [], ""
        for _ in range(5):
            page = (await client.get(f"/sales?sort={sort}&limit=2{token}")).json()
            seen += [(row["sku"], row["number"]) for row in page["rows"]]
            token = f"&next={page['next']}"
        assert page["next"] is None
        assert sorted(seen) == [(sku, number) for sku in SKUS for number in (1, 2, 3)], sort
    assert (await client.get("/sales/b/2")).json()["price"] == 20
    assert (await client.get("/totals/all")).json() == {"id": "all", "sales": 9, "revenue": 180}


async def test_wrong_questions_are_answered_with_problems(client: httpx.AsyncClient) -> None:
    page = (await client.get("/sales?sort=price&limit=2")).json()
    for path, status in {
        "/sales?colour=red": 422,
        "/sales?sort=note": 422,
        "/sales?limit=0": 422,
        f"/sales?sort=sku&next={page['next']}": 422,
        "/sales?next=nonsense": 422,
        "/sales/b/9": 404,
        "/sales/b/nine": 404,
        "/sales/b%00/1": 404,
        "/sales?after=other/0/1": 422,
        "/sales?after=sales": 422,
    }.items():
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path


async def test_reader_waits_for_its_own_write(database_url: str) -> None:
    """The handlers stand still until the reader waits; the outbox's event has no position, so it waits for `now`."""
    gate = threading.Event()

    def stand(event: Sold) -> None:
        assert gate.wait(60)

    platform, sales, _ = shop(settings_for(database_url), stand)
    app = application(platform)
    app.include_router(sales.router())
    async with running(platform, MemoryLog()), caller(app) as client:
        written = await platform.publish(Sold(sku="a", number=1))
        after = position_text(written.position)
        for path in ("/sales/a/1", "/state/seen/seen/a"):
            behind = await client.get(f"{path}?after={after}&wait=0")
            assert (behind.status_code, behind.headers["Retry-After"]) == (503, "1")
            assert "has not come to `after` in time" in behind.json()["detail"]
        gate.set()
        for path in ("/sales/a/1", "/state/seen/seen/a", "/sales"):
            assert (await client.get(f"{path}?after={after}&wait=20")).status_code == 200
        async with platform.transaction() as tx:
            tx.emit(Sold(sku="a", number=2))
        assert (await client.get("/sales/a/2?after=now&wait=20")).json()["number"] == 2


async def test_reader_is_told_that_its_write_is_parked(database_url: str) -> None:
    def fail(event: Sold) -> None:
        raise ValueError("not today")

    platform, sales, _ = shop(settings_for(database_url, retry_first_seconds=60.0, retry_max_seconds=60.0), fail)
    app = application(platform)
    app.include_router(sales.router())
    async with running(platform, MemoryLog()), caller(app) as client:
        written = await platform.publish(Sold(sku="a", number=1))
        answer = await client.get(f"/sales?after={position_text(written.position)}&wait=20")
        assert answer.status_code == 409
        assert "waits in the lane of its key" in answer.json()["detail"]


async def test_table_is_readable_with_sqlalchemy(database_url: str) -> None:
    platform, sales, _ = shop(settings_for(database_url))
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with running(platform, MemoryLog()) as runtime:
            await publish(runtime, *(sold("a", number, number) for number in (1, 2, 3)))
            await until_settled(runtime, "sales")
            columns = sales.selectable.c
            async with engine.connect() as connection:
                total = select(func.sum(columns.price)).where(columns.sku == "a", columns.number > 1)
                assert (await connection.execute(total)).scalar_one() == 5
    finally:
        await engine.dispose()


async def test_new_field_with_a_default_becomes_a_column(database_url: str) -> None:
    log = MemoryLog()
    platform, _, _ = shop(settings_for(database_url))
    async with running(platform, log) as runtime:
        await publish(runtime, sold("a", 1))
        await until_settled(runtime, "sales")

    class Wider(Sale):
        rebate: int = 3
        reason: str | None = None

    newer = Headrace("shop", settings_for(database_url))
    newer.projection("sales", Wider, key=("sku", "number")).on(Sold)(_put_wider(Wider))
    async with running(newer, log) as runtime:
        await publish(runtime, sold("a", 2))
        await until_settled(runtime, "sales")
        rows = await fetch(runtime, "select number, rebate, reason from projections.sales order by 1")
        assert [tuple(row) for row in rows] == [(1, 3, None), (2, 4, "new")]
    async with running(platform, log) as runtime:  # the code before it continues to write
        await publish(runtime, sold("a", 3))
        await until_settled(runtime, "sales")
        assert await value(runtime, "select rebate from projections.sales where number = 3") == 3


def _ignore(event: Sold) -> None:
    pass


def _put_wider(row: Any) -> Any:
    def put(event: Sold, rows: Any) -> None:
        rows.put(row(sku=event.sku, number=event.number, price=event.price, rebate=4, reason="new"))

    put.__annotations__ = {"event": Sold, "rows": Table[row], "return": None}
    return put


async def test_tables_that_do_not_fit_are_refused(database_url: str) -> None:
    platform, _, _ = shop(settings_for(database_url))
    log = MemoryLog()
    async with running(platform, log):
        pass

    class Other(BaseModel):
        sku: str
        number: str

    changed = Headrace("shop", settings_for(database_url))
    changed.projection("sales", Other, key="sku").on(Sold)(_ignore)
    with pytest.raises(ConfigurationError, match=r"projections\.sales was made from another class \(number, price, "):
        async with running(changed, log):
            pass
    stranger = Headrace("bank", settings_for(database_url))
    stranger.projection("mine", Sale, key="sku", table="sales").on(Sold)(_ignore)
    with pytest.raises(ConfigurationError, match=r"belongs to the projection 'sales' of 'shop'; give it another name"):
        async with running(stranger, log):
            pass
    await execute(database_url, "create table projections.own (id int)")
    unknown = Headrace("bank", settings_for(database_url))
    unknown.projection("own", Sale, key="sku").on(Sold)(_ignore)
    with pytest.raises(ConfigurationError, match="is there and belongs to nobody known"):
        async with running(unknown, log):
            pass
