"""An expired letter's decision counts as long as the log is read: in a rebuild, and in a rewind."""

from __future__ import annotations

from pydantic import BaseModel

from headrace import Event, Headrace, State, Table
from headrace.database.pool import connect
from headrace.dead_letters.decisions import expire
from headrace.handlers.verdicts import DeadLetter
from headrace.log.memory import MemoryLog
from headrace.rebuild.rebuild import rebuild
from headrace.rewind.plan import Target, make_plan
from headrace.rewind.rewind import rewind
from headrace.runtime import Runtime
from headrace.settings import Settings
from headrace.state.hand import Act
from tests.support.platform import (
    client,
    execute,
    fetch,
    publish,
    record,
    running,
    settings_for,
    states,
    until_settled,
    value,
)
from tests.support.waiting import until


class Sold(Event, type="sold", topic="sales", key="sku"):
    sku: str
    price: int


class Total(BaseModel):
    id: str
    revenue: int = 0


class Prices(BaseModel):
    prices: list[int] = []


def shop(settings: Settings, refuses: list[int]) -> Headrace:
    """Return a service that sums sales, and notes them; it gives up on prices that it refuses."""
    platform = Headrace("shop", settings)

    @platform.projection("totals", Total, key="id").on(Sold)
    def total(event: Sold, rows: Table[Total]) -> None:
        refuse(event)
        rows.add(event.sku, revenue=event.price)

    @platform.subscription("prices").on(Sold)
    def note(event: Sold, kept: State[Prices]) -> None:
        refuse(event)
        kept.prices.append(event.price)

    def refuse(event: Sold) -> None:
        if event.price in refuses:
            raise DeadLetter("refused")

    return platform


async def sell(runtime: Runtime, *prices: object) -> None:
    await publish(runtime, *(record("sales", "sold", {"sku": "a", "price": price}, key="a") for price in prices))
    await until_settled(runtime, "totals")
    await until_settled(runtime, "prices")


async def revenue(runtime: Runtime) -> int:
    return int(await value(runtime, "select revenue from projections.totals where id = 'a'"))


async def expire_all(database_url: str, letters: int) -> None:
    """Let a month go by for the letters that were decided about."""
    await execute(database_url, "update headrace.dead_letter set decided_at = now() - interval '31 days'")
    connection = await connect(database_url)
    try:
        assert await expire(connection, 30) == letters
    finally:
        await connection.close()


async def build(runtime: Runtime, database_url: str) -> None:
    connection = await connect(database_url)
    assert runtime.log is not None
    try:
        totals = runtime.registry.subscriptions["totals"]
        await rebuild(connection, runtime.log, runtime.registry, totals, runtime.settings, lambda *_: None)  # type: ignore[arg-type]
    finally:
        await connection.close()


async def test_rebuild_knows_an_edit_whose_letter_expired(database_url: str) -> None:
    platform = shop(settings_for(database_url, partitions=1), [])
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await sell(runtime, 1, "torn")
        letters = (await http.get("/dead-letters", params={"subscription": "totals"})).json()["dead_letters"]
        (path,) = [f"/dead-letters/{letter['id']}" for letter in letters]
        assert (await http.post(f"{path}/edit", json={"data": {"sku": "a", "price": 10}})).status_code == 200
        assert (await http.post(f"{path}/replay")).status_code == 200

        async def is_applied() -> bool:
            return await revenue(runtime) == 11

        await until(is_applied, "the edit is applied")
        await expire_all(database_url, 1)
        await build(runtime, database_url)
        assert await revenue(runtime) == 11
        shown = (await http.get(path)).json()
        assert (shown["reason"], shown["decision"], shown["value"]) == ("expired", "replay", None)


async def test_rebuild_leaves_out_a_discard_that_expired(database_url: str) -> None:
    platform = shop(settings_for(database_url, partitions=1), [5])
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await sell(runtime, 1, 5)
        await http.post("/dead-letters/discard", json={"where": {}})
        await expire_all(database_url, 2)
        await build(runtime, database_url)
        assert await revenue(runtime) == 1
        rows = await fetch(runtime, "select reason from headrace.dead_letter")
        assert [row["reason"] for row in rows] == ["expired", "expired"]


async def test_rewind_leaves_out_a_discard_that_expired(database_url: str) -> None:
    refuses = [3, 7]
    platform = shop(settings_for(database_url, partitions=1), refuses)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await sell(runtime, *range(9))
        await http.post("/dead-letters/discard", json={"where": {}})
        await expire_all(database_url, 4)
        refuses.clear()
        connection = await connect(database_url)
        assert runtime.log is not None
        try:
            prices = runtime.registry.subscriptions["prices"]
            plan = await make_plan(connection, runtime.log, prices, Target(offset=6, partition=0))
            act = Act("ann", "a bug")
            await rewind(connection, runtime.log, runtime.registry, prices, runtime.settings, plan, act)
        finally:
            await connection.close()
        await until_settled(runtime, "prices")
        kept = (await states(runtime, "prices", "prices"))["a"]["prices"]
        assert kept == [0, 1, 2, 4, 5, 6, 8], "the one before the place stays out of the states, the other is skipped"
