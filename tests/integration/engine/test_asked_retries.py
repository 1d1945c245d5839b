"""An operator asks for a retry, and settled dead letters expire."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import DeadLetter
from headrace.engine.lanes import Lanes
from headrace.errors import StateUnavailableError
from headrace.log.memory import MemoryLog
from tests.support.platform import client, has_pages, notebook, noted, publish, settings_for, value, watched
from tests.support.waiting import until


async def test_lane_is_retried_at_once_when_an_operator_asks(database_url: str, topic_name: str) -> None:
    """Its next attempt would come after an hour."""
    is_broken = True

    def fail(event: Any) -> None:
        if is_broken:
            raise ValueError("not yet")

    waits: dict[str, Any] = {"retry_first_seconds": 3_600.0, "retry_max_seconds": 3_600.0}
    platform = notebook(settings_for(database_url, partitions=1, **waits), topic_name, fail)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: value(runtime, "select count(*) from headrace.lane"), "the event is parked")
        is_broken = False
        answer = await http.post("/subscriptions/notes/lanes/retry?key=a")
        assert answer.status_code == 200, answer.text
        await until(lambda: has_pages(runtime, {"a": [1]}), "it is applied")


async def test_an_asked_retry_outlives_an_outage(
    database_url: str, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres is away just when the owner wants to read what the operator changed."""
    is_broken, tries = True, 0

    def fail(event: Any) -> None:
        if is_broken:
            raise ValueError("not yet")

    async def read(self: Lanes, *arguments: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise StateUnavailableError("away")
        await read_due_times(self, *arguments)

    read_due_times = Lanes.read_due_times
    waits: dict[str, Any] = {"retry_first_seconds": 3_600.0, "retry_max_seconds": 3_600.0}
    platform = notebook(settings_for(database_url, partitions=1, **waits), topic_name, fail)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1))
        await until(lambda: value(runtime, "select count(*) from headrace.lane"), "the event is parked")
        monkeypatch.setattr(Lanes, "read_due_times", read)
        is_broken = False
        answer = await http.post("/subscriptions/notes/lanes/retry?key=a")
        assert answer.status_code == 200, answer.text
        await until(lambda: has_pages(runtime, {"a": [1]}), "it is applied")
    assert tries == 2


async def test_held_key_is_released_though_a_letter_of_it_is_replayed(database_url: str, topic_name: str) -> None:
    """The replay joins the lane first, which the owner knows as held: what the operator has said stands."""
    is_broken = True

    def fail(event: Any) -> None:
        if is_broken:
            raise DeadLetter("it is wrong") if event.number == 1 else ValueError("not yet")

    settings = settings_for(database_url, partitions=1, retry_attempts=1, retry_at_end="hold")
    platform = notebook(settings, topic_name, fail)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "a", 2))
        await until(lambda: value(runtime, "select true from headrace.lane where due_at = 'infinity'"), "it is held")
        is_broken = False
        await http.post("/subscriptions/notes/pause")
        orders = runtime.consumers["notes"].workers[0].orders
        await until(lambda: orders.is_paused, "the worker knows")
        assert (await http.post("/subscriptions/notes/lanes/retry?key=a")).json()["lanes"] == 1
        assert (await http.post("/dead-letters/replay", json={"where": {"subscription": "notes"}})).is_success
        await until(lambda: orders.reads_due_times, "the worker is told so")
        await http.post("/subscriptions/notes/resume")
        await until(lambda: has_pages(runtime, {"a": [2, 1]}), "both are applied", 10)


async def test_settled_dead_letters_expire_and_open_ones_stay(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=1), topic_name)
    log = MemoryLog()
    async with watched(platform, log) as runtime:
        assert runtime.pool is not None
        insert = (
            'insert into headrace.dead_letter (subscription, topic, partition, "offset", "timestamp", headers, reason, '
            "error, decision, decided_at, settled_at) "
            "values ('notebook.notes', $1, 0, $2, 0, '\\x90', 'decode', 'odd', $3, "
            "now() - interval '40 days', now() - interval '40 days')"
        )
        for offset, decision in enumerate(("discard", "replay", None)):
            await runtime.pool.execute(insert, topic_name, offset, decision)
    async with watched(platform, log) as runtime:
        await until(
            lambda: value(runtime, "select count(*) = 1 from headrace.dead_letter where reason <> 'expired'"),
            "the settled ones are gone",
        )
        assert await value(runtime, "select decision is null from headrace.dead_letter where reason <> 'expired'")
