"""What old days of the ledger are kept for, for how long, and that no trouble with them stops a platform."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import asyncpg
import pytest

from headrace.engine.context import EngineContext
from headrace.ledger.partitions import tend, try_to_tend
from headrace.log.memory import MemoryLog
from headrace.registry import Registry
from headrace.telemetry.health import Health
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.tracing import Tracing
from tests.support.platform import notebook, noted, pages, publish, running, settings_for, until_settled, value

TODAY = date(2031, 5, 17)
WINDOW = 100
CLAIM = """
insert into headrace.claim (subscription, topic, partition, epoch, token, claimed_offset, next_offset, emitted_through)
values ($1, 'pages', 0, 1, gen_random_uuid(), 0, 0, $2)
"""
ROW = """
insert into headrace.ledger (subscription, topic, partition, sequence, kind, epoch, first_offset, next_offset, applied,
                             skipped, parked, dead, ids, emits, committed_at)
values ($1, 'pages', 0, $2, 0, 1, 0, 0, 0, 0, 0, 0, $3, $4, $5)
"""


@pytest.fixture
def context(pool: asyncpg.Pool[Any]) -> Iterator[EngineContext]:
    with ThreadPoolExecutor(1) as executor:
        yield EngineContext(
            settings=settings_for("postgresql://nowhere", ledger_days=14, dedupe_window_ids=WINDOW),
            registry=Registry("ledger"),
            log=MemoryLog(),
            pool=pool,
            metrics=Metrics(version="test", role="all"),
            tracing=Tracing(service="ledger"),
            health=Health(),
            executor=executor,
            owner="me",
        )


async def test_day_is_dropped_once_newer_ids_fill_the_window(context: EngineContext) -> None:
    """The window counts ids and not rows."""
    await _claim(context, "busy")
    await _row(context, "busy", 1, days_ago=40, ids=5)
    for sequence in range(2, 200):  # of retries: they hold no ids
        await _row(context, "busy", sequence, days_ago=20, ids=0)
    await _row(context, "busy", 200, days_ago=1, ids=WINDOW - 1)

    await tend(context.connection, context.settings.engine, TODAY)
    assert await _is_kept(context, 40)

    await _row(context, "busy", 201, days_ago=1, ids=1)
    await tend(context.connection, context.settings.engine, TODAY)
    assert not await _is_kept(context, 40)


async def test_clock_that_is_turned_forward_drops_nothing(context: EngineContext) -> None:
    """Days are made by the clock of Postgres, and dropped by the one that is behind."""
    await _claim(context, "busy")
    await _row(context, "busy", 1, days_ago=5, ids=5)
    await _row(context, "busy", 2, days_ago=1, ids=WINDOW)

    await tend(context.connection, context.settings.engine, TODAY + timedelta(days=400), TODAY)
    assert await _is_kept(context, 5)
    assert all([await _is_kept(context, -400 - ahead) for ahead in range(4)])

    await tend(context.connection, context.settings.engine, TODAY + timedelta(days=400))
    assert not await _is_kept(context, 5)


async def test_idle_subscription_keeps_its_ids_for_ten_times_the_days(context: EngineContext) -> None:
    """The subscription sees no further event."""
    await _claim(context, "renamed")
    await _row(context, "renamed", 1, days_ago=141, ids=5)
    await _row(context, "renamed", 2, days_ago=140, ids=5)

    await tend(context.connection, context.settings.engine, TODAY)

    assert not await _is_kept(context, 141)
    assert await _is_kept(context, 140)


async def test_emits_that_are_not_published_keep_their_day(
    context: EngineContext, caplog: pytest.LogCaptureFixture
) -> None:
    """The day is kept for ever, and a warning names it."""
    await _claim(context, "behind", emitted_through=1)
    await _row(context, "behind", 2, days_ago=500, emits=b"not in the log")
    await _row(context, "behind", 3, days_ago=1, ids=WINDOW)

    await tend(context.connection, context.settings.engine, TODAY)
    assert await _is_kept(context, 500)
    assert "not published" in caplog.text

    await context.pool.execute("update headrace.claim set emitted_through = 2")
    await tend(context.connection, context.settings.engine, TODAY)
    assert not await _is_kept(context, 500)


async def test_rows_in_the_default_partition_cost_their_day_only(context: EngineContext) -> None:
    await _row(context, "early", 1, days_ago=-1)
    assert await context.pool.fetchval("select count(*) from headrace.ledger_default") == 1

    await tend(context.connection, context.settings.engine, TODAY)
    await tend(context.connection, context.settings.engine, TODAY + timedelta(days=1))

    assert not await _is_kept(context, -1)
    assert all([await _is_kept(context, -ahead) for ahead in (0, 2, 3, 4)])
    assert await context.pool.fetchval("select count(*) from headrace.ledger") == 1


async def test_ledger_that_cannot_be_tended_is_a_warning(
    context: EngineContext, pool: asyncpg.Pool[Any], caplog: pytest.LogCaptureFixture
) -> None:
    await pool.execute("drop table headrace.ledger cascade")

    await try_to_tend(context.connection, context.settings.engine)

    assert "the ledger's partitions wait" in caplog.text


async def test_platform_works_when_the_ledger_cannot_be_tended(database_url: str, topic_name: str) -> None:
    """Something else has the name of the day: its rows go into the default partition."""
    connection = await asyncpg.connect(database_url)
    today = datetime.now(UTC).date()
    await connection.execute(f"drop table headrace.ledger_{today:%Y%m%d}")
    await connection.execute(f"create view headrace.ledger_{today:%Y%m%d} as select 1")
    await connection.close()

    async with running(notebook(settings_for(database_url), topic_name), MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}
        assert await value(runtime, "select count(*) from headrace.ledger_default") == 1


async def _claim(context: EngineContext, subscription: str, emitted_through: int = 1_000) -> None:
    await context.pool.execute(CLAIM, subscription, emitted_through)


async def _row(
    context: EngineContext, subscription: str, sequence: int, *, days_ago: int, ids: int = 0, emits: bytes | None = None
) -> None:
    """Write a row of that day, whose partition was made in time, unless the day is still to come."""
    day = TODAY - timedelta(days=days_ago)
    if days_ago > 0 and not await _is_kept(context, days_ago):
        await tend(context.connection, context.settings.engine, day)
    at = datetime.combine(day, time(12), UTC)
    await context.pool.execute(ROW, subscription, sequence, bytes(16 * ids), emits, at)


async def _is_kept(context: EngineContext, days_ago: int) -> bool:
    name = f"headrace.ledger_{TODAY - timedelta(days=days_ago):%Y%m%d}"
    return bool(await context.pool.fetchval("select to_regclass($1) is not null", name))
