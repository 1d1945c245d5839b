"""The ledger's time partitions: made ahead, dropped when old. Nothing is ever deleted row by row."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta

from headrace.engine.context import EngineContext
from headrace.errors import HeadraceError
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

EVERY_SECONDS = 3600.0
DAYS_AHEAD = 3
LOCK = "select pg_try_advisory_xact_lock(hashtext('headrace.ledger'))"
TABLES = """
select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'headrace.ledger'::regclass and c.relname ~ '^ledger_[0-9]{8}$'
"""
NEEDED = """
select exists (
    select from headrace.{table} kept join headrace.claim using (subscription, topic, partition)
    where kept.sequence > claim.sequence - 100 or (kept.sequence > claim.emitted_through and kept.emits is not null)
)
"""


async def maintain_ledger(context: EngineContext) -> None:
    """Keep the ledger's partitions in order until cancelled; one process at a time does it."""
    while True:
        try:
            await tend(context, datetime.now(UTC).date())
        except HeadraceError as error:
            logger.warning("the ledger's partitions wait", error=str(error))
        await asyncio.sleep(EVERY_SECONDS)


async def tend(context: EngineContext, today: date) -> None:
    """Make the partitions of the next days; drop those older than `ledger_days` that no claim needs.

    Needed: a claim's last 100 batches (its dedupe window at least) and emits not yet published. Raises: StateError.
    """
    oldest = today - timedelta(days=context.settings.engine.ledger_days)
    async with context.connection() as connection, connection.transaction():
        if not await connection.fetchval(LOCK):
            return
        await connection.execute("set local lock_timeout = '3s'")
        tables = {row["relname"] for row in await connection.fetch(TABLES)}
        for ahead in range(DAYS_AHEAD + 1):
            day = today + timedelta(days=ahead)
            name = f"ledger_{day:%Y%m%d}"
            if name not in tables:
                await connection.execute(
                    f"create table headrace.{name} partition of headrace.ledger "
                    f"for values from ('{day} 00:00+00') to ('{day + timedelta(days=1)} 00:00+00')"
                )
        for name in sorted(tables):
            day = datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=UTC).date()
            if day < oldest and not await connection.fetchval(NEEDED.format(table=name)):
                await connection.execute(f"drop table headrace.{name}")
                logger.info("ledger partition dropped", table=name)
