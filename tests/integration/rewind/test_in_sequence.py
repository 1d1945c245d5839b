"""A subscription in sequence goes back where the log tells what was applied; where it does not, it says so."""

from __future__ import annotations

import pytest

from headrace import InSequence
from headrace.errors import ConfigurationError
from headrace.log.memory import MemoryLog
from headrace.rewind.plan import Target
from headrace.runtime import Runtime
from tests.integration.rewind.support import BEGINNING, go_back, rehearsed
from tests.support.auditing import assert_promises_hold
from tests.support.kafka import KafkaServer
from tests.support.platform import fetch, has_pages, publish, running, settings_for, until_settled
from tests.support.sequences import LONG, numbered, ordered
from tests.support.waiting import until

SHORT = InSequence(wait_seconds=0.1)


@pytest.mark.parametrize("log", ["embedded", "kafka"])
async def test_keys_that_were_in_sequence_are_made_again(
    database_url: str, kafka: KafkaServer, topic_name: str, log: str
) -> None:
    """Behind the place their order is kept as ever: what comes too early waits, and what comes late is stale."""
    settings = settings_for(database_url, kafka.url if log == "kafka" else log, partitions=1)
    expected = {"a": [1, 2, 3, 4], "b": [1]}
    async with running(ordered(settings, topic_name, LONG)) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1, 2, 1), *numbered(topic_name, "b", 1))
        await publish(runtime, *numbered(topic_name, "a", 4, 3))
        await until_has(runtime, expected)
        plan, rewound = await go_back(runtime, database_url, "notes", Target(offset=3, partition=0))
        assert (plan.states, rewound.changed["keys"]) == ("remade", 2)
        await until_settled(runtime, "notes")
        await until_has(runtime, expected)
        await publish(runtime, *numbered(topic_name, "a", 5, 2, 7))
        await until_has(runtime, {"a": [1, 2, 3, 4, 5], "b": [1]})
        (lane,) = await fetch(runtime, "select error from headrace.lane")
        assert lane["error"] == "sequence 6 of its key has not come"


async def test_key_whose_event_came_before_its_turn_is_refused(database_url: str, topic_name: str) -> None:
    """Nobody knows whether number 2 came in time: the order of the log is the same."""
    settings = settings_for(database_url, "embedded", partitions=1)
    async with running(ordered(settings, topic_name, SHORT)) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1, 3))
        await until_has(runtime, {"a": [1, 3]})
        await publish(runtime, *numbered(topic_name, "a", 2, 4), *numbered(topic_name, "b", 1, 2))
        await until_has(runtime, {"a": [1, 3, 4], "b": [1, 2]})
        refused = f"the event of 'a' at {topic_name}/0/1 came before its turn, and the log does not tell"
        with pytest.raises(ConfigurationError, match=refused):
            await go_back(runtime, database_url, "notes", Target(offset=3, partition=0))
        assert await has_pages(runtime, {"a": [1, 3, 4], "b": [1, 2]})
        await go_back(runtime, database_url, "notes", Target(offset=5, partition=0))  # of `b` alone
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"a": [1, 3, 4], "b": [1, 2]})
    await assert_promises_hold(database_url)


async def test_dry_run_leaves_out_whose_order_is_not_known(database_url: str, topic_name: str) -> None:
    """What still waits is known; what was applied before its turn, or behind a number that fails now, is not."""
    settings = settings_for(database_url, partitions=1)
    log = MemoryLog()
    async with running(ordered(settings, topic_name, SHORT), log) as runtime:
        await publish(runtime, *numbered(topic_name, "a", 1, 3), *numbered(topic_name, "b", 1, 2))
        await until_has(runtime, {"a": [1, 3], "b": [1, 2]})
    platform = ordered(settings, topic_name, LONG)
    async with running(platform, log) as runtime:
        await publish(runtime, *numbered(topic_name, "b", 3, 5), *numbered(topic_name, "c", 1, 2))
        await until_has(runtime, {"a": [1, 3], "b": [1, 2, 3], "c": [1, 2]})
        same = await rehearsed(runtime, database_url, ordered(settings, topic_name, LONG), BEGINNING, "notes")
        assert (same.is_empty, same.keys, same.left_out) == (True, 2, 1), same.changes
        broken = ordered(settings, topic_name, LONG, {2})
        found = await rehearsed(runtime, database_url, broken, BEGINNING, "notes")
        assert ([raised.key for raised in found.raises], found.left_out) == (["b", "c"], 2)
        assert {change.key for change in found.changes} == {"c"}, "a number that fails leaves a gap"


async def until_has(runtime: Runtime, expected: dict[str, list[int]]) -> None:
    async def is_there() -> bool:
        return await has_pages(runtime, expected)

    await until(is_there, f"the pages are {expected}", 30)
