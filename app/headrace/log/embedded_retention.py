"""Deletes records of the embedded log that are older than HEADRACE_EMBEDDED_LOG_DAYS and read by all subscriptions.

A record is kept until the slowest subscription has read past it, plus one: each claim checks the record before its next
offset to recognise the log. If a subscription that runs here has not claimed a partition yet, nothing of that partition
is deleted. Only the beginning of a partition is deleted, in pieces, so what is kept has no gap.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from headrace import sql
from headrace.database.pool import Pool
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.log")

EVERY_SECONDS = 3600.0
PIECE_RECORDS = 10_000
DAY_MILLISECONDS = 86_400_000


class Reading(Protocol):
    """A subscription, as far as the log is concerned."""

    @property
    def group(self) -> str: ...
    @property
    def topics(self) -> Sequence[str]: ...


async def keep_short(pool: Pool, served: Sequence[Reading], days: int) -> None:
    """Delete what is old, every hour, until cancelled; `served` are the subscriptions that run here."""
    readers: dict[str, set[str]] = {}
    for subscription in served:
        for topic in subscription.topics:
            readers.setdefault(topic, set()).add(subscription.group)
    while True:
        try:
            records = await cut_off(pool, readers, time.time_ns() // 1_000_000 - days * DAY_MILLISECONDS)
            if records:
                logger.info("old records left the embedded log", records=records)
        except Exception as error:
            logger.warning("the embedded log keeps its old records", error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(EVERY_SECONDS)


async def cut_off(pool: Pool, readers: Mapping[str, Collection[str]], before_ms: int) -> int:
    """Delete the records from before that time (Unix milliseconds) that may leave; return how many they were.

    `readers` are the subscriptions that run here, by topic.
    """
    records = 0
    for topic, partition, claimed_by in await pool.fetch(sql.log.READERS):
        if not set(readers.get(topic, ())) <= set(claimed_by or ()):
            continue
        first_kept = await pool.fetchval(sql.log.FIRST_KEPT, topic, partition, before_ms)
        while (cut := await _cut(pool, topic, partition, first_kept)) > 0:
            records += cut
    return records


async def _cut(pool: Pool, topic: str, partition: int, first_kept: int) -> int:
    status = await pool.execute(sql.log.DELETE_BEFORE, topic, partition, first_kept, PIECE_RECORDS)
    return int(status.removeprefix("DELETE "))
