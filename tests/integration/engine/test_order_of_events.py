"""Late events are stale and early ones held, in Postgres: over owners, for operators, in every view."""

from __future__ import annotations

from typing import Any, Literal

import asyncpg
import pytest

from headrace import InSequence, Latest
from headrace.engine import commit
from headrace.engine.claim import BLAMED_CRASHES
from headrace.engine.lanes import open_lanes
from headrace.errors import BatchTooLargeError
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from tests.support.obstacles import leave_dead_owners
from tests.support.platform import (
    client,
    execute,
    has_pages,
    publish,
    running,
    sample,
    settings_for,
    until_settled,
    value,
    watched,
)
from tests.support.sequences import LONG, held, numbered, ordered
from tests.support.waiting import until


async def test_held_events_are_applied_when_the_gap_is_filled(database_url: str, topic_name: str) -> None:
    platform = ordered(settings_for(database_url, partitions=1), topic_name, LONG)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as web:
        await publish(runtime, *numbered(topic_name, "a", 1, 5, 3), *numbered(topic_name, "b", 1, 2))
        await until(lambda: has_pages(runtime, {"a": [1], "b": [1, 2]}), "what is in sequence is applied")
        assert await held(runtime) == ["a"]
        shown = (await web.get("/subscriptions")).json()["subscriptions"][0]
        assert (shown["gap_keys"], shown["parked_events"]) == (1, 2)
        assert shown["order"] == "in sequence by sequence from 1 on; waits 3600 s for a missing event, then goes on"
        fate = (await web.get("/events/a-3", params={"source": "/tests"})).json()["fates"][0]
        assert fate["outcome"] == "parked"
        assert "it is held: sequence 2 of its key has not come" in fate["detail"]
        await until(lambda: sample(runtime, "lane_gap_keys") == 1, "the gauge shows the key")
        await publish(runtime, *numbered(topic_name, "a", 4, 2))
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 2, 3, 4, 5], "b": [1, 2]})
        assert sample(runtime, "events_parked_total", reason="held") >= 1
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0


async def test_event_whose_turn_has_not_come_is_not_to_blame(
    database_url: str, topic_name: str, pool: asyncpg.Pool
) -> None:
    """Its handler was not called, so it has ended none of the owners that died: not those of its batch or its lane."""
    await leave_dead_owners(pool, topic_name, BLAMED_CRASHES - 1)
    platform, log = ordered(settings_for(database_url, partitions=1), topic_name, LONG), MemoryLog()
    await log.create(topic_name, 1)
    await log.publish(numbered(topic_name, "a", 3))
    async with watched(platform, log) as runtime:
        await until(lambda: held(runtime), "the event is held")
        assert sample(runtime, "events_parked_total", reason="process_killed") == 0
    await pool.execute("update headrace.lane set attempts = 100, is_running = true")
    async with watched(platform, log) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 2))
        await until(lambda: value(runtime, "select count(*) = 2 from headrace.parked"), "both are held")
        await publish(runtime, *numbered(topic_name, "a", 1))
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 2, 3]})
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0


async def test_gap_that_was_filled_is_noticed_by_the_next_owner(database_url: str, topic_name: str) -> None:
    """An owner that has just claimed does not know what its lanes wait for, so it looks once."""
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1, 4, 3))
        await until(lambda: has_pages(runtime, {"a": [1]}), "the first is applied")
        await until(lambda: held(runtime), "the others are held")
    filled = """update headrace.state set data = '{"last": {"": 2}}' where state = 'headraceorder'"""
    await execute(database_url, filled)
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 3, 4]})


async def test_held_events_are_the_next_owners(database_url: str, topic_name: str) -> None:
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1, 4, 3))
        await until(lambda: held(runtime), "the others are held")
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        assert await held(runtime) == ["a"]
        await publish(runtime, *numbered(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 2, 3, 4]})


@pytest.mark.parametrize("at_end", ["go_on", "dead_letter"])
async def test_operator_lets_a_key_go_on_without_what_is_missing(
    database_url: str, topic_name: str, at_end: Literal["go_on", "dead_letter"]
) -> None:
    order = InSequence(wait_seconds=3600, at_end=at_end)
    platform = ordered(settings_for(database_url, partitions=1), topic_name, order)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as web:
        await publish(runtime, *numbered(topic_name, "a", 1, 3, 4))
        await until(lambda: held(runtime), "the key waits")
        asked = {"error_type": "SequenceGapError"}
        assert (await web.post("/subscriptions/notes/lanes/retry", params=asked)).json()["lanes"] == 1
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 3, 4]})
        assert sample(runtime, "sequence_gaps_total", end="went_on") == 1
        await publish(runtime, *numbered(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 3, 4]})
        assert sample(runtime, "events_skipped_total", reason="stale") == 1


async def test_time_limit_ends_the_wait(database_url: str, topic_name: str) -> None:
    platform = ordered(settings_for(database_url, partitions=1), topic_name, InSequence(wait_seconds=0.3))
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1, 3, 5))
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 3, 5]})
        assert sample(runtime, "sequence_gaps_total", end="went_on") == 2


async def test_event_that_fails_behind_a_gap_comes_to_an_end(database_url: str, topic_name: str) -> None:
    """The gap was waited for once: it is passed over for all attempts of the event."""
    settings = settings_for(database_url, partitions=1, retry_attempts=3, retry_first_seconds=0.01)
    platform = ordered(settings, topic_name, InSequence(wait_seconds=0.3), {3})
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1, 3))
        await until_settled(runtime, "notes")
        assert await value(runtime, "select attempts from headrace.dead_letter") == 3
        assert sample(runtime, "sequence_gaps_total", end="went_on") == 1


async def test_replays_of_what_was_given_up_are_applied_in_sequence(database_url: str, topic_name: str) -> None:
    order = InSequence(wait_seconds=0.2, at_end="dead_letter")
    platform = ordered(settings_for(database_url, partitions=1), topic_name, order)
    async with running(platform, MemoryLog()) as runtime, client(platform) as web:
        await publish(runtime, *numbered(topic_name, "a", 1, 4, 3))
        dead = "select count(*) from headrace.dead_letter where reason = 'gap'"
        await until(lambda: _is(runtime, dead, 2), "what waited is given up on")
        await publish(runtime, *numbered(topic_name, "a", 2))
        await until(lambda: has_pages(runtime, {"a": [1, 2]}), "the missing one is applied")
        assert (await web.post("/dead-letters/replay", json={"where": {"subscription": "notes"}})).is_success
        await until(lambda: has_pages(runtime, {"a": [1, 2, 3, 4]}), "the replays are applied")


async def test_dead_letter_is_a_gap_and_its_replay_is_applied_late(database_url: str, topic_name: str) -> None:
    broken = {2}
    order = InSequence(wait_seconds=0.2)
    settings = settings_for(database_url, partitions=1, retry_attempts=1)
    platform = ordered(settings, topic_name, order, broken)
    async with running(platform, MemoryLog()) as runtime, client(platform) as web:
        await publish(runtime, *numbered(topic_name, "a", 1, 2, 3))
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 3]})
        broken.clear()
        (letter,) = (await web.get("/dead-letters")).json()["dead_letters"]
        assert (await web.post(f"/dead-letters/{letter['id']}/replay")).is_success
        await until(lambda: has_pages(runtime, {"a": [1, 3, 2]}), "the replay is applied")
        await publish(runtime, *numbered(topic_name, "a", 4))
        await until(lambda: has_pages(runtime, {"a": [1, 3, 2, 4]}), "the key goes on where it was")


@pytest.mark.parametrize("again", [False, True], ids=["same owner", "next owner"])
async def test_latest_wins_over_owners_and_a_stale_event_says_so(
    database_url: str, topic_name: str, again: bool
) -> None:
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    first = ordered(settings, topic_name, Latest())
    async with running(first, log) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 9, 10))
        await until_settled(runtime, "notes")
    platform = ordered(settings, topic_name, Latest()) if again else first
    async with running(platform, log) as runtime, client(platform) as web:
        await publish(runtime, *numbered(topic_name, "a", 8, 11))
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [9, 10, 11]})
        fate = (await web.get("/events/a-8", params={"source": "/tests"})).json()["fates"][0]
        assert (fate["outcome"], fate["offset"]) == ("stale", 2)
        await publish(runtime, *numbered(topic_name, "a", 8))
        await until(lambda: sample(runtime, "events_skipped_total", reason="duplicate_id") == 1, "a copy is known")
        assert (await web.get("/state/notes/headraceorder/a")).json() == {"last": {"noted": 11}}


async def _is(runtime: Runtime, sql: str, expected: Any) -> bool:
    return bool(await value(runtime, sql) == expected)


async def test_early_event_does_not_fail_for_its_state(database_url: str, topic_name: str) -> None:
    """A state that cannot be read is no failure of an event whose turn has not come: what is missing runs first."""
    settings = settings_for(database_url, partitions=1, retry_first_seconds=600, retry_max_seconds=600)
    log = MemoryLog()
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1))
        await until(lambda: has_pages(runtime, {"a": [1]}), "the first is applied")
    await execute(database_url, "update headrace.state set data = '{\"numbers\": 7}' where state = 'notes'")
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 3))
        await until(lambda: value(runtime, "select true from headrace.parked"), "the early one is parked")
        await publish(runtime, *numbered(topic_name, "a", 2))
        failed = "select count(*) = 2 from headrace.parked join headrace.lane using (key) where attempts = 1"
        await until(lambda: value(runtime, failed), "the one that was missing fails")
    await execute(database_url, "update headrace.state set data = '{\"numbers\": [1]}' where state = 'notes'")
    await execute(database_url, "update headrace.lane set due_at = now()")
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 2, 3]})


async def test_early_event_does_not_fail_for_postgres(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was to look for a gap takes too long in Postgres, alone: the event's handler was not called."""
    settings, log = settings_for(database_url, partitions=1), MemoryLog()
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1, 3))
        await until(lambda: held(runtime), "the event is held")
    refused = 0

    async def refuse_once(*args: Any) -> None:
        nonlocal refused
        refused += 1
        if refused == 1:
            raise BatchTooLargeError("Postgres timed out", reason="timeout")
        await open_lanes(*args)

    monkeypatch.setattr(commit, "open_lanes", refuse_once)
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await until(lambda: refused > 1, "the owner has looked for the gap again")
        await publish(runtime, *numbered(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 2, 3]})


async def test_what_waits_when_the_order_is_declared_runs_in_sequence(database_url: str, topic_name: str) -> None:
    settings = settings_for(database_url, partitions=1, retry_first_seconds=600, retry_max_seconds=600)
    log = MemoryLog()
    async with running(ordered(settings, topic_name, None, {1}), log) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1, 4, 3, 2))
        await until(lambda: _is(runtime, "select count(*) from headrace.parked", 4), "all wait")
    await execute(database_url, "update headrace.lane set due_at = now()")
    async with running(ordered(settings, topic_name, LONG), log) as runtime:
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 2, 3, 4]})
