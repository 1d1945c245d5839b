"""A service whose sales are noted and counted, and a rewind and a dry run as the commands do them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from headrace import Event, Headrace, State
from headrace.database.pool import connect
from headrace.log.ports import NewRecord
from headrace.rewind.difference import Difference
from headrace.rewind.dry_run import dry_run
from headrace.rewind.plan import Plan, Target, make_plan
from headrace.rewind.rewind import Rewound, rewind
from headrace.runtime import Runtime
from headrace.settings import Settings
from headrace.state.hand import Act
from tests.support.platform import record, states


class Sold(Event, type="sold", topic="sales", key="sku"):
    sku: str
    number: int


class Counted(Event, type="counted", topic="counts", key="sku"):
    sku: str
    number: int


class Sales(BaseModel):
    numbers: list[int] = []


class Counts(BaseModel):
    numbers: list[int] = []


def shop(settings: Settings, before: Callable[[Sold], None] = lambda event: None) -> Headrace:
    """Return a service that notes each sale, and emits it for a second subscription."""
    platform = Headrace("shop", settings)

    @platform.subscription("sales").on(Sold)
    def note(event: Sold, kept: State[Sales]) -> Counted:
        before(event)
        kept.numbers.append(event.number)
        return Counted(sku=event.sku, number=event.number)

    @platform.subscription("counts").on(Counted)
    def count(event: Counted, kept: State[Counts]) -> None:
        kept.numbers.append(event.number)

    return platform


def sold(sku: str, number: int) -> NewRecord:
    return record("sales", "sold", {"sku": sku, "number": number}, key=sku, id=f"{sku}-{number}")


BEGINNING = Target()


async def go_back(
    runtime: Runtime, database_url: str, name: str = "sales", target: Target = BEGINNING, **options: Any
) -> tuple[Plan, Rewound]:
    """Rewind as the command does it: with a connection of its own."""
    assert runtime.log is not None
    subscription = runtime.registry.subscriptions[name]
    connection = await connect(database_url)
    try:
        plan = await make_plan(connection, runtime.log, subscription, target, **options)
        return plan, await rewind(
            connection, runtime.log, runtime.registry, subscription, runtime.settings, plan, Act("ann", "a bug")
        )
    finally:
        await connection.close()


async def numbers(runtime: Runtime, subscription: str = "sales") -> dict[str, list[int]]:
    return {key: kept["numbers"] for key, kept in (await states(runtime, subscription, subscription)).items()}


async def rehearsed(
    runtime: Runtime, database_url: str, platform: Headrace, target: Target = BEGINNING, name: str = "sales"
) -> Difference:
    """Run the platform's handlers dry, over what the runtime has applied."""
    assert runtime.log is not None
    platform.registry.complete()
    connection = await connect(database_url)
    await connection.execute("set default_transaction_read_only = on")
    try:
        subscription = platform.registry.subscriptions[name]
        return await dry_run(connection, runtime.log, platform.registry, subscription, platform.settings, target)
    finally:
        await connection.close()
