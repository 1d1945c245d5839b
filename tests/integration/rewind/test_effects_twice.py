"""A second rewind while the first one is not through: effects run again for its own events only."""

from __future__ import annotations

from headrace import Headrace
from headrace.log.memory import MemoryLog
from headrace.rewind.plan import Target
from tests.integration.rewind.support import Sold, go_back, sold
from tests.support.auditing import assert_promises_hold
from tests.support.platform import execute, publish, running, settings_for, value
from tests.support.waiting import until


async def test_effects_of_the_first_rewind_stay_quiet(database_url: str) -> None:
    platform = Headrace("shop", settings_for(database_url, partitions=1))
    calls: list[int] = []

    @platform.subscription("mail").effect(Sold)
    async def mail(event: Sold) -> None:
        calls.append(event.number)

    async def has_called_all() -> bool:
        applied = await value(runtime, "select next_offset from headrace.claim")
        return (applied, await value(runtime, "select count(*) from headrace.effect")) == (10, 0)

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(sold("a", number) for number in range(10)))
        await until(has_called_all, "all mails are out")
        assert sorted(calls) == list(range(10))
        calls.clear()
        await execute(database_url, "insert into headrace.subscription values ('shop.mail', true)")
        await go_back(runtime, database_url, "mail", Target(offset=6, partition=0))
        plan, _ = await go_back(runtime, database_url, "mail", Target(offset=4, partition=0), effects=True)
        await execute(database_url, "update headrace.subscription set paused = false")
        await until(has_called_all, "all is applied again")
        assert (plan.events, sorted(calls)) == (2, [4, 5])
    await assert_promises_hold(database_url)
