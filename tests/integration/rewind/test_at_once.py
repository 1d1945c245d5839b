"""Two people rewind a subscription at once: a plan that was made before the other's rewind ended is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from headrace.cli import rewind as command
from headrace.database.pool import Connection, connect
from headrace.errors import ConfigurationError
from headrace.log.memory import MemoryLog
from headrace.log.ports import Bounds, Log, TopicPartition
from headrace.rewind.plan import Target
from headrace.state.hand import Act
from tests.integration.rewind.support import go_back, numbers, shop, sold
from tests.support.auditing import assert_promises_hold
from tests.support.platform import client, publish, running, settings_for, until_settled, value

NEXT_OFFSET = "select next_offset from headrace.claim where subscription = 'shop.sales'"


async def test_a_plan_from_before_another_rewind_is_refused(database_url: str) -> None:
    """The later one would move the claim forward, over events that nobody has applied again."""
    log = MemoryLog()
    planned, opened, bounds_of = asyncio.Event(), asyncio.Event(), log.bounds

    async def bounds(partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        found = await bounds_of(partitions)
        if not planned.is_set():
            planned.set()
            await opened.wait()
        return found

    platform = shop(settings_for(database_url, partitions=1))
    async with running(platform, log) as runtime, client(platform) as http:
        await publish(runtime, *(sold("a", number) for number in range(10)))
        await until_settled(runtime, "sales", "counts")
        await http.post("/subscriptions/sales/pause")
        log.bounds = bounds  # type: ignore[method-assign]
        late = asyncio.create_task(http.post("/subscriptions/sales/rewind", json={"offset": 5, "confirmed": True}))
        await planned.wait()
        first = await http.post("/subscriptions/sales/rewind", json={"beginning": True, "confirmed": True})
        assert first.status_code == 200, first.text
        opened.set()
        answer = await late
        assert answer.status_code == 409 and "nothing was changed: plan it again" in answer.json()["detail"]
        assert await value(runtime, NEXT_OFFSET) == 0
        assert (await http.get("/subscriptions/sales")).json()["paused"]
        await http.post("/subscriptions/sales/resume")
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": list(range(10))}
    await assert_promises_hold(database_url)


async def test_the_command_refuses_when_another_came_first(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it asks whether to do what it has planned."""
    platform = shop(settings_for(database_url, partitions=1))
    subscription, target = platform.registry.subscriptions["sales"], Target(offset=1, partition=0)
    async with running(platform, MemoryLog()) as runtime:

        @asynccontextmanager
        async def opened(*_: object) -> AsyncIterator[tuple[Connection, Log | None]]:
            connection = await connect(database_url)
            try:
                yield connection, runtime.log
            finally:
                await connection.close()

        monkeypatch.setattr(command, "opened", opened)
        await publish(runtime, *(sold("a", number) for number in range(3)))
        await until_settled(runtime, "sales", "counts")
        confirmed = await command._plan(platform, subscription, target, {})
        await go_back(runtime, database_url)
        await until_settled(runtime, "sales", "counts")
        with pytest.raises(ConfigurationError, match="plan it again"):
            await command._rewind(platform, subscription, target, {}, confirmed, Act("bob", None))
        assert await value(runtime, "select count(*) from headrace.claim_move") == 1
    await assert_promises_hold(database_url)
