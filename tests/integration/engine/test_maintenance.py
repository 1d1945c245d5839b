"""The ledger's time partitions are made ahead, and batches do without where one is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.ledger.partitions import tend
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from tests.support.platform import (
    fetch,
    notebook,
    noted,
    pages,
    publish,
    running,
    settings_for,
    until_settled,
    value,
)

TODAY = datetime(2031, 5, 17, tzinfo=UTC)


async def test_partitions_of_the_next_days_are_made(database_url: str, topic_name: str) -> None:
    async with running(notebook(settings_for(database_url), topic_name), MemoryLog()) as runtime:
        await _tend(runtime, TODAY)
        await _tend(runtime, TODAY)
        await _tend(runtime, TODAY + timedelta(days=1))
        made = [name for name in await _tables(runtime) if name.startswith("ledger_2031")]
        assert made == [f"ledger_203105{day}" for day in (17, 18, 19, 20, 21)]


async def test_batches_go_into_the_partition_of_their_day(database_url: str, topic_name: str) -> None:
    async with running(notebook(settings_for(database_url), topic_name), MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
        assert await value(runtime, "select count(*) from headrace.ledger") == 1
        assert await value(runtime, "select count(*) from headrace.ledger_default") == 0


async def test_rows_that_came_before_their_partition_hinder_nothing(database_url: str, topic_name: str) -> None:
    """A clock that jumped, or days without maintenance: the rows are in the default partition and stay there."""
    log = MemoryLog()
    platform = notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1, id="one"))
        await until_settled(runtime, "notes")
        await _write(runtime, "create temporary table kept as select * from headrace.ledger")
        for name in await _tables(runtime):
            await _write(runtime, f"drop table headrace.{name}")
        rows = await fetch(runtime, "select * from kept")
        for row in rows:
            places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
            await _write(runtime, f"insert into headrace.ledger values ({places})", *row.values())
        assert await value(runtime, "select count(*) from headrace.ledger_default") == 1
    async with running(platform, log) as runtime:
        today = f"ledger_{datetime.now(UTC):%Y%m%d}"
        assert today not in await _tables(runtime)
        assert len(await _tables(runtime)) == 3, "the next days have theirs"
        await publish(runtime, noted(topic_name, "a", 1, id="one"), noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}


async def _tend(runtime: Runtime, day: datetime) -> None:
    context = runtime.consumers["notes"]._context
    await tend(context.connection, context.settings.engine, day.date())


async def _tables(runtime: Runtime) -> list[str]:
    sql = "select relname from pg_class where relname ~ '^ledger_[0-9]{8}$' order by relname"
    return [row["relname"] for row in await fetch(runtime, sql)]


async def _write(runtime: Runtime, sql: str, *arguments: Any) -> None:
    assert runtime.pool is not None
    await runtime.pool.execute(sql, *arguments)
