"""A service whose routes write orders of their own and emit events, and whose handler notes what arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
from pydantic import BaseModel

from headrace import Event, Headrace, State
from headrace.log.ports import Log
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.platform import states

TABLE = "create table orders (id bigint generated always as identity, customer text not null, number integer not null)"


class Placed(Event, type="order.placed", topic="orders", key="customer"):
    customer: str
    number: int


class Book(BaseModel):
    """What arrived for one customer, in order: a lost, a doubled and an overtaken event each show."""

    numbers: list[int] = []


def order_service(settings: Settings, before: Callable[[Any], None] = lambda event: None) -> Headrace:
    """Return the service; `before` may raise first."""
    platform = Headrace("shop", settings)

    @platform.subscription("books").on(Placed)
    def note(event: Placed, book: State[Book]) -> None:
        before(event)
        book.numbers.append(event.number)

    return platform


async def create_orders(database_url: str) -> None:
    """Create the table of the service's own."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(TABLE)
    finally:
        await connection.close()


async def books(runtime: Runtime) -> dict[str, list[int]]:
    """Return what has arrived, by customer."""
    return {customer: book["numbers"] for customer, book in (await states(runtime, "books", "book")).items()}


async def begin_beside(settings: Settings, log: Log) -> tuple[Headrace, Runtime]:
    """Start another process of the service, which takes events in and has a part of the outbox; the test stops it."""
    platform = order_service(settings)
    runtime = Runtime(settings.model_copy(update={"role": "ingest"}), platform.registry)
    runtime.log, platform.runtime = log, runtime
    await runtime.start()
    return platform, runtime
