"""A topic that is made again with fewer partitions: what waited in those that are gone is kept, and can be replayed."""

from __future__ import annotations

from typing import Any

import asyncpg

from headrace import Headrace
from headrace.engine.accept import accept_topic
from headrace.handlers.verdicts import DeadLetter
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from tests.support.auditing import assert_promises_hold
from tests.support.platform import (
    execute,
    fetch,
    has_pages,
    notebook,
    noted,
    publish,
    running,
    settings_for,
    until_settled,
    value,
)
from tests.support.waiting import until

DEAD, WAITING = [page for page in map(str, range(99)) if partition_for(page.encode(), 3) == 2][:2]
"""Pages of a partition that the topic does not have when it has two."""


async def test_what_waits_in_a_lost_partition_is_replayed_elsewhere(database_url: str, topic_name: str) -> None:
    is_broken = [True]

    def refuse(event: Any) -> None:
        if is_broken[0] and event.page == DEAD:
            raise DeadLetter("no such page")
        if is_broken[0] and event.page == WAITING:
            raise ValueError("not yet")

    platform = notebook(settings_for(database_url, partitions=3, retry_attempts=1_000), topic_name, refuse)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, page, number) for number in (1, 2) for page in (DEAD, WAITING)))
        await until(lambda: value(runtime, "select count(*) = 2 from headrace.dead_letter"), "two are given up on")
        await until(lambda: value(runtime, "select count(*) = 2 from headrace.parked"), "two wait in a lane")
    await execute(database_url, "update headrace.dead_letter set decision = 'replay' where event_id is not null")
    is_broken[0] = False
    log = MemoryLog()
    await log.create(topic_name, 2)
    await _accept(database_url, log, topic_name)
    async with running(_with_two(platform, database_url), log) as runtime:
        await until(lambda: has_pages(runtime, {DEAD: [1, 2]}), "the replays that were asked for are applied")
        await until_settled(runtime, "notes")
        letters = await fetch(runtime, "select * from headrace.dead_letter where decision is null")
        assert {(row["partition"], row["key"]) for row in letters} == {
            (partition_for(WAITING.encode(), 2), WAITING.encode())
        }
        assert all("lane of partition 2, which the topic no longer has" in row["error"] for row in letters)
        await publish(runtime, noted(topic_name, WAITING, 3))
        await until(lambda: has_pages(runtime, {WAITING: [3]}), "the key goes on")
        await execute(database_url, "update headrace.dead_letter set decision = 'replay' where decision is null")
        await until(lambda: has_pages(runtime, {WAITING: [3, 1, 2]}), "they are applied in their order")
    await assert_promises_hold(database_url)


def _with_two(platform: Headrace, database_url: str) -> Headrace:
    platform._settings = settings_for(database_url, partitions=2)
    return platform


async def _accept(database_url: str, log: MemoryLog, topic: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await accept_topic(connection, log, topic, window_ids=1_000)
    finally:
        await connection.close()
