"""A platform that keeps its promises audits clean, whatever else happens to it."""

from __future__ import annotations

import random
from collections.abc import Container
from functools import partial

import pytest

from headrace import Emit, Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from tests.support.auditing import assert_promises_hold
from tests.support.obstacles import die
from tests.support.platform import (
    Notes,
    client,
    execute,
    notebook,
    noted,
    publish,
    running,
    settings_for,
    until_settled,
    value,
)
from tests.support.waiting import until

GIVEN_UP = "select count(*) >= 5 from headrace.dead_letter where key like 'torn-%'"
TAKEN_UP = "select count(*) = 0 from headrace.dead_letter where decision = 'replay' and settled_at is null"


def unreliable(settings: Settings, topic: str, chance: random.Random, torn: Container[str] = ()) -> Headrace:
    """Return a service whose handler fails one time in five, and emits; another subscription takes the emits.

    It always fails for a page that is torn.
    """
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    class Echoed(Event, type="echoed", topic=f"{topic}-echoes", key="page"):
        page: str

    @platform.subscription("notes").on(Noted)
    def note(event: Noted, kept: State[Notes], emit: Emit) -> None:
        if chance.random() < 0.2 or event.page in torn:
            raise ValueError("no ink")
        kept.numbers.append(event.number)
        emit(Echoed(page=event.page))

    @platform.subscription("echoes").on(Echoed)
    def echo(event: Echoed, kept: State[Notes]) -> None:
        kept.numbers.append(1)

    return platform


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_busy_platform_with_deaths_and_replays(database_url: str, topic_name: str, seed: int) -> None:
    """Owners die in the middle of it, keys fail and are given up on, letters are replayed, emits are left behind."""
    chance, log = random.Random(seed), MemoryLog()
    for life in range(3):
        settings = settings_for(database_url, partitions=2, retry_attempts=2, batch_records=20)
        torn = {f"torn-{number}" for number in range(5)}
        platform = unreliable(settings, topic_name, random.Random(seed + life), torn)
        async with running(platform, log) as runtime, client(platform) as http:
            for _ in range(3):
                pages = [f"page-{chance.randrange(12)}" for _ in range(25)]
                await publish(runtime, *(noted(topic_name, page, life) for page in pages))
                await assert_promises_hold(database_url)
            await publish(runtime, *(noted(topic_name, page, life) for page in sorted(torn)))
            await until(partial(value, runtime, GIVEN_UP), "the torn pages are dead letters")
            torn.clear()
            for letter in (await http.get("/dead-letters")).json()["dead_letters"][:8]:
                await http.post(f"/dead-letters/{letter['id']}/replay")
            await assert_promises_hold(database_url)
            if life < 2:
                await die(runtime)
            else:
                await until(partial(value, runtime, TAKEN_UP), "the replays are taken up")
                await until_settled(runtime, "notes", "echoes", seconds=60)
                assert await value(runtime, "select count(distinct kind) from headrace.ledger") == 3
        await assert_promises_hold(database_url)


async def test_days_that_retention_dropped(database_url: str, topic_name: str) -> None:
    """Rows are missing behind an older day that is kept, and at last all of them; the claim stays where it is."""
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, log) as runtime:
        for number in range(1, 6):
            await publish(runtime, noted(topic_name, "ada", number))
            await until_settled(runtime, "notes")
    older = "update headrace.ledger set committed_at = committed_at - interval '40 days' where sequence = 1"
    await execute(database_url, f"{older}; delete from headrace.ledger where sequence in (2, 3)")
    await assert_promises_hold(database_url)
    quiet = "update headrace.claim set committed_at = committed_at - interval '40 days'"
    await execute(database_url, f"{quiet}; delete from headrace.ledger")
    await assert_promises_hold(database_url)


async def test_emits_of_a_paused_subscription_are_marked(database_url: str, topic_name: str) -> None:
    """A pause keeps nothing from being noted as published."""
    log, platform = MemoryLog(), unreliable(settings_for(database_url, partitions=1), topic_name, random.Random(3))
    async with running(platform, log) as runtime, client(platform) as http:
        await publish(runtime, *(noted(topic_name, "ada", number) for number in range(20)))
        await until_settled(runtime, "notes", "echoes", seconds=60)
        await publish(runtime, noted(topic_name, "bob", 1))
        await http.post("/subscriptions/notes/pause")
        marked = "select bool_and(emitted_through = sequence) from headrace.claim where subscription = 'notebook.notes'"
        await until(lambda: value(runtime, marked), "the emits are marked while it is paused")
        await assert_promises_hold(database_url)
