"""The ledger's time partitions: made ahead, dropped when old. Nothing is ever deleted row by row.

A day's partition that is older than `ledger_days` is kept only while it holds
* emits that are not marked as published, however old they are: a committed emit is kept; or
* event ids of a claim's dedupe window: fewer than `dedupe_window_ids` ids are in the claim's newer rows. A subscription
  that sees an event a week, or none any more because it was renamed, would so keep everybody's ledger for ever;
  therefore ids count for 10 times `ledger_days` at most.

Rows of a day that had no partition yet (nobody tended the ledger for days) went into `ledger_default`. Postgres makes
no partition for rows that are there, so that day's rows stay in `ledger_default` and are never dropped.

Postgres dates the rows, so days are made by its clock. Days are dropped by its clock and this process's, whichever is
behind: one clock that is turned forward drops nothing. The order of a partition's rows is that of their numbers.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, time, timedelta

from headrace import sql
from headrace.database.pool import Connection, ConnectionFactory
from headrace.ledger.rows import IDENTITY_BYTES
from headrace.settings import EngineSettings
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

EVERY_SECONDS = 3600.0
DAYS_AHEAD = 3
WINDOW_LIFE = 10
"""Ids of a dedupe window keep a partition for so many times `ledger_days` at most."""


async def maintain_ledger(lend: ConnectionFactory, settings: EngineSettings) -> None:
    """Keep the ledger's partitions in order until cancelled; one process at a time does it."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        await try_to_tend(lend, settings)


async def try_to_tend(lend: ConnectionFactory, settings: EngineSettings) -> None:
    """Tend the ledger as of now. Whatever fails is a warning and waits for the next time: batches need none of it."""
    try:
        async with lend() as connection:
            today = await connection.fetchval(sql.ledger.TODAY)
        await tend(lend, settings, today, min(today, datetime.now(UTC).date()))
    except Exception as error:
        logger.warning("the ledger's partitions wait", error=f"{type(error).__name__}: {error}")


async def tend(lend: ConnectionFactory, settings: EngineSettings, today: date, surely: date | None = None) -> None:
    """Make the partitions of the next days; drop those older than `ledger_days` that no claim needs.

    `surely` is what day it is at least, where clocks differ. Each step is a transaction of its own, since it locks the
    whole ledger. Raises: StateError.
    """
    surely = surely or today
    oldest = surely - timedelta(days=settings.ledger_days)
    window_from = surely - timedelta(days=settings.ledger_days * WINDOW_LIFE)
    async with lend() as connection:
        tables = await _tables(connection)
        for ahead in range(DAYS_AHEAD + 1):
            day = today + timedelta(days=ahead)
            if _name(day) not in tables:
                await _make(connection, day)
        for table in sorted(tables):
            day = _day(table)
            if day < oldest:
                await _drop(connection, table, settings.dedupe_window_ids * IDENTITY_BYTES if day >= window_from else 0)


def _name(day: date) -> str:
    return f"ledger_{day:%Y%m%d}"


async def _tables(connection: Connection) -> set[str]:
    return {row["relname"] for row in await connection.fetch(sql.ledger.DAYS)}


async def days(connection: Connection) -> set[date]:
    """Return the days that have a partition."""
    return {_day(table) for table in await _tables(connection)}


def _day(table: str) -> date:
    return datetime.strptime(table[-8:], "%Y%m%d").replace(tzinfo=UTC).date()


async def _make(connection: Connection, day: date) -> None:
    begin, end = (datetime.combine(at, time(), UTC) for at in (day, day + timedelta(days=1)))
    async with connection.transaction():
        if not await _is_our_turn(connection) or _name(day) in await _tables(connection):
            return
        if await connection.fetchval(sql.ledger.HAS_ROWS_IN_DEFAULT, begin, end):
            logger.warning("a day of the ledger stays in ledger_default", day=str(day))
            return
        await connection.execute(
            sql.ledger.CREATE_DAY.format(table=_name(day), begin=begin.isoformat(), end=end.isoformat())
        )


async def _drop(connection: Connection, table: str, window_bytes: int) -> None:
    async with connection.transaction():
        if not await _is_our_turn(connection) or table not in await _tables(connection):
            return
        unpublished = await connection.fetch(sql.claim.WITH_UNPUBLISHED_EMITS.format(table=table))
        if unpublished:
            claims = ", ".join(f"{name} {topic}/{partition}" for name, topic, partition in unpublished)
            logger.warning("ledger partition kept for emits that are not published", table=table, claims=claims)
        elif not await _holds_window(connection, table, window_bytes):
            await connection.execute(sql.ledger.DROP_DAY.format(table=table))
            logger.info("ledger partition dropped", table=table)


async def _is_our_turn(connection: Connection) -> bool:
    await connection.execute("set local lock_timeout = '3s'")
    return bool(await connection.fetchval(sql.ledger.TRY_LOCK_DAYS))


async def _holds_window(connection: Connection, table: str, window_bytes: int) -> bool:
    """True if a claim's rows that are newer than its last one here hold fewer than `window_bytes` of ids."""
    if window_bytes == 0:
        return False
    for row in await connection.fetch(sql.ledger.LAST_IDS_BY_CLAIM.format(table=table)):
        newer = 0
        async for found in connection.cursor(sql.ledger.SIZES_OF_NEWER_IDS, *row.values(), prefetch=1_000):
            newer += found["bytes"]
            if newer >= window_bytes:
                break
        else:
            return True
    return False
