"""What cannot be made again is refused, says why, and changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from headrace import State, Table, Transaction, keep
from headrace.errors import ConfigurationError, HandlerError
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.rewind.plan import Target
from tests.integration.rewind.support import BEGINNING, Counted, Sales, Sold, go_back, numbers, shop, sold
from tests.support.auditing import assert_promises_hold
from tests.support.created_again import CreatedAgain
from tests.support.platform import (
    execute,
    publish,
    running,
    settings_for,
    states,
    until_settled,
    value,
)


async def test_what_cannot_be_made_again_is_refused(database_url: str) -> None:
    """Each refusal says why, and nothing was changed."""
    platform = shop(settings_for(database_url, partitions=2))
    both = platform.subscription("both")

    class Row(BaseModel):
        sku: str

    @platform.projection("rows", Row, key="sku").on(Sold)
    def put(event: Sold, rows: Table[Row]) -> None: ...

    @both.on(Sold)
    def one(event: Sold, kept: State[Sales]) -> None: ...

    @both.on(Counted)
    def other(event: Counted, kept: State[Sales]) -> None: ...

    @platform.subscription("own").on(Sold)
    async def write(event: Sold, tx: Transaction) -> None: ...

    @keep(ttl=60)
    class Visits(BaseModel):
        number: int = 0

    @platform.subscription("visits").on(Sold)
    def visit(event: Sold, visits: State[Visits]) -> None:
        visits.number += 1

    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold("a", 1), sold("b", 1), sold("a", 2))
        await until_settled(runtime, "sales", "counts", "both", "own", "visits")
        for name, target, reason in (
            ("both", BEGINNING, "'both' has states and takes events of 2 topics, which would come in another order"),
            ("rows", BEGINNING, "'rows' is a projection; build its table again: headrace rebuild MODULE:APP rows."),
            ("own", BEGINNING, "'own': write takes a Transaction"),
            ("visits", Target(offset=1, partition=partition_for(b"a", 2)), "'visits': states of Visits expire"),
            ("sales", Target(offset=0), "'sales' has 2 partitions, and an offset belongs to one"),
            ("sales", Target(partition=2), "'sales' has no partition 2; it has 2 partitions."),
            ("sales", Target(at=datetime.now(UTC)), "'sales' has applied nothing behind that place"),
        ):
            with pytest.raises(ConfigurationError, match=reason):
                await go_back(runtime, database_url, name, target)
        assert await value(runtime, "select count(*) from headrace.claim_move") == 0
        await go_back(runtime, database_url, "own", own_sql=True)
        await go_back(runtime, database_url, "visits")
        await until_settled(runtime, "own", "visits")
        assert await states(runtime, "visits", "visits") == {"a": {"number": 2}, "b": {"number": 1}}


async def test_a_log_that_has_lost_the_beginning_is_refused(database_url: str) -> None:
    """Nobody knows what the states were; a subscription without states goes to what is left."""
    platform = shop(settings_for(database_url, "embedded", partitions=1))

    @platform.subscription("heard").on(Sold)
    def hear(event: Sold) -> None: ...

    async with running(platform) as runtime:
        await publish(runtime, *(sold("a", number) for number in range(5)))
        await until_settled(runtime, "sales", "counts", "heard")
        await execute(database_url, "delete from headrace.log_record where topic = 'sales' and \"offset\" < 2")
        with pytest.raises(
            ConfigurationError, match="sales/0 begins at offset 2, but the states of 'sales' are made of"
        ):
            await go_back(runtime, database_url, target=Target(offset=3, partition=0))
        with pytest.raises(ConfigurationError, match="sales/0 begins at offset 2, and retention has taken what was"):
            await go_back(runtime, database_url, "heard")
        plan, _ = await go_back(runtime, database_url, "heard", Target(offset=2, partition=0))
        assert (plan.states, plan.events) == ("none", 3)
        await until_settled(runtime, "heard")
    await assert_promises_hold(database_url)


async def test_a_beginning_that_nobody_knows_any_more_is_refused(database_url: str) -> None:
    """Who began at the end of the log would apply events that were never meant for it, and emit anew."""
    seen: list[int] = []
    platform = shop(settings_for(database_url, partitions=1))

    @platform.subscription("heard", start="latest").on(Sold)
    def hear(event: Sold) -> None:
        seen.append(event.number)

    log = MemoryLog()
    async with running(shop(settings_for(database_url, partitions=1)), log) as runtime:
        await publish(runtime, sold("a", 1), sold("a", 2))
        await until_settled(runtime, "sales", "counts")
    async with running(platform, log) as runtime:
        await until_settled(runtime, "heard")
        await publish(runtime, sold("a", 3))
        await until_settled(runtime, "heard")
        await publish(runtime, sold("a", 4))
        await until_settled(runtime, "heard")
        await go_back(runtime, database_url, "heard")
        await until_settled(runtime, "heard")
        assert seen == [3, 4, 3, 4]
        await execute(database_url, "delete from headrace.ledger where subscription = 'shop.heard' and sequence < 2")
        with pytest.raises(ConfigurationError, match="and the ledger does not reach back to it; go back to an offset"):
            await go_back(runtime, database_url, "heard")
        await go_back(runtime, database_url, "heard", Target(offset=3, partition=0))
        await until_settled(runtime, "heard")
        assert seen == [3, 4, 3, 4, 4]


async def test_a_topic_that_was_created_again_is_refused(database_url: str) -> None:
    """The states would be made of events that they never saw."""
    log = CreatedAgain()
    async with running(shop(settings_for(database_url, partitions=1)), log) as runtime:
        await publish(runtime, sold("a", 1), sold("a", 2))
        await until_settled(runtime, "sales", "counts")
        log.topic_id = "second"
        with pytest.raises(ConfigurationError, match="HEADRACE_LOG does not hold the topic 'sales' that was applied"):
            await go_back(runtime, database_url)
        log.topic_id = "first"
        await go_back(runtime, database_url)
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2]}


async def test_a_past_that_fails_now_changes_nothing(database_url: str) -> None:
    is_worse = [False]

    def fail(event: Sold) -> None:
        if is_worse[0] and event.number == 1:
            raise KeyError("gone")

    platform = shop(settings_for(database_url, partitions=1), fail)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold("a", 1), sold("a", 2))
        await until_settled(runtime, "sales", "counts")
        is_worse[0] = True
        with pytest.raises(HandlerError, match="note raised KeyError: 'gone' at sales/0/0, which was applied before"):
            await go_back(runtime, database_url, target=Target(offset=1, partition=0))
        assert await numbers(runtime) == {"a": [1, 2]}
        await publish(runtime, sold("a", 3))  # and the subscription goes on
        await until_settled(runtime, "sales", "counts")
        assert await numbers(runtime) == {"a": [1, 2, 3]}
    await assert_promises_hold(database_url)
