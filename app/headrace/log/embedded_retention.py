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

from headrace.database.pool import Pool
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.log")

EVERY_SECONDS = 3600.0
PIECE_RECORDS = 10_000
DAY_MILLISECONDS = 86_400_000

PARTITIONS = """
select topic, partition, array_agg(subscription) filter (where subscription is not null) as claimed_by
from headrace.log_partition left join headrace.claim using (topic, partition) group by topic, partition
"""
FIRST_KEPT = """
select least(
    coalesce((select r."offset" from headrace.log_record r where r.topic = $1 and r.partition = $2
               and r."timestamp" >= $3 order by r."offset" limit 1), p.next_offset),
    (select min(c.next_offset) - 1 from headrace.claim c where c.topic = $1 and c.partition = $2)
) from headrace.log_partition p where p.topic = $1 and p.partition = $2
"""
CUT = """
delete from headrace.log_record where topic = $1 and partition = $2 and "offset" < least($3, $4 + (
    select min("offset") from headrace.log_record where topic = $1 and partition = $2))
"""


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
    for topic, partition, claimed_by in await pool.fetch(PARTITIONS):
        if not set(readers.get(topic, ())) <= set(claimed_by or ()):
            continue
        first_kept = await pool.fetchval(FIRST_KEPT, topic, partition, before_ms)
        while (cut := await _cut(pool, topic, partition, first_kept)) > 0:
            records += cut
    return records


async def _cut(pool: Pool, topic: str, partition: int, first_kept: int) -> int:
    status = await pool.execute(CUT, topic, partition, first_kept, PIECE_RECORDS)
    return int(status.removeprefix("DELETE "))
