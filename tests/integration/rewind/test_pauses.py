"""An operator pauses or resumes a subscription while it is rewound: the operator has the last word."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from httpx import AsyncClient

from headrace.log.memory import MemoryLog
from headrace.rewind.plan import Target
from headrace.runtime import Runtime
from tests.integration.rewind.support import Sold, go_back, numbers, shop, sold
from tests.support.auditing import assert_promises_hold
from tests.support.platform import client, execute, publish, running, settings_for, until_settled, value
from tests.support.waiting import until

LATER = Target(offset=1, partition=0)


class Held:
    """A service of which events run again only when it is opened."""

    def __init__(self) -> None:
        self.is_held, self.entered, self.opened = threading.Event(), threading.Event(), threading.Event()

    def wait(self, event: Sold) -> None:
        if self.is_held.is_set():
            self.entered.set()
            assert self.opened.wait(60)

    def open(self) -> None:
        self.is_held.clear()
        self.opened.set()


@asynccontextmanager
async def service(database_url: str, held: Held) -> AsyncIterator[tuple[Runtime, AsyncClient]]:
    platform = shop(settings_for(database_url, partitions=1), held.wait)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, sold("a", 1), sold("a", 2))
        await until_settled(runtime, "sales", "counts")
        yield runtime, http
    await assert_promises_hold(database_url)


async def begun(runtime: Runtime, database_url: str, held: Held) -> asyncio.Task[Any]:
    """Begin a rewind; return once it makes the states of then, at which it is held."""
    held.is_held.set()
    task = asyncio.create_task(go_back(runtime, database_url, target=LATER))
    await until(held.entered.is_set, "the states of then are being made")
    return task


async def shown(http: AsyncClient) -> tuple[bool, Any]:
    answer = (await http.get("/subscriptions/sales")).json()
    return answer["paused"], answer["rewind"] and answer["rewind"]["running"]


async def test_a_pause_during_a_rewind_is_kept(database_url: str) -> None:
    held = Held()
    async with service(database_url, held) as (runtime, http):
        task = await begun(runtime, database_url, held)
        assert (await http.post("/subscriptions/sales/pause")).json() == {"name": "sales", "paused": True}
        assert await shown(http) == (True, True)
        held.open()
        _, done = await task
        assert done.is_paused
        assert await shown(http) == (True, None)
        assert await value(runtime, "select next_offset from headrace.claim where subscription = 'shop.sales'") == 1
        await http.post("/subscriptions/sales/resume")
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2]}


async def test_a_pause_during_a_rewind_that_fails_is_kept(database_url: str) -> None:
    held = Held()
    async with service(database_url, held) as (runtime, http):
        task = await begun(runtime, database_url, held)
        await http.post("/subscriptions/sales/pause")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.open()
        assert await shown(http) == (True, None)
        await http.post("/subscriptions/sales/resume")


async def test_a_resume_during_a_rewind_counts_when_it_ends(database_url: str) -> None:
    """It does not let the subscription run half rewound."""
    held = Held()
    async with service(database_url, held) as (runtime, http):
        await http.post("/subscriptions/sales/pause")
        task = await begun(runtime, database_url, held)
        await http.post("/subscriptions/sales/resume")
        assert await shown(http) == (True, True)
        held.open()
        _, done = await task
        assert not done.is_paused
        assert await shown(http) == (False, None)
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2]}


async def test_a_resume_ends_what_a_cut_off_rewind_left(database_url: str) -> None:
    """A pause does not, and hides nothing."""
    async with service(database_url, Held()) as (runtime, http):
        await execute(
            database_url,
            "insert into headrace.subscription (subscription, rewind_by, rewind_began_at) "
            "values ('shop.sales', 'ann', now())",
        )
        assert await shown(http) == (True, False)
        await http.post("/subscriptions/sales/pause")
        assert await shown(http) == (True, False)
        await http.post("/subscriptions/sales/resume")
        assert await shown(http) == (False, None)
        await publish(runtime, sold("a", 3))
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2, 3]}
