"""Where a new owner begins to read, and what it compares with the log before it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from headrace.engine.worker import Phase
from headrace.log.memory import MemoryLog, MemoryReader
from headrace.log.ports import NewRecord, TopicPartition
from tests.support.platform import (
    execute,
    fetch,
    notebook,
    noted,
    pages,
    publish,
    running,
    sample,
    settings_for,
    until_settled,
)
from tests.support.waiting import until


class Holed(MemoryLog):
    """A log in which some offsets hold no record that a reader sees, as compacted or aborted ones in Kafka."""

    async def reader(self, positions: Mapping[TopicPartition, int]) -> MemoryReader:
        """Return a reader that passes over the records with the key `hole`."""
        made = await super().reader(positions)
        take = made._take

        def take_visible(max_records: int, max_bytes: int) -> dict[TopicPartition, list[Any]]:
            found = {p: [r for r in records if r.key != b"hole"] for p, records in take(max_records, max_bytes).items()}
            return {p: records for p, records in found.items() if records}

        made._take = take_visible  # type: ignore[method-assign]
        return made


async def test_claim_passes_over_holes_and_keeps_its_fingerprint(database_url: str, topic_name: str) -> None:
    """So a topic that was created again is still told from the one that was read."""
    log, platform = Holed(), notebook(settings_for(database_url, partitions=1), topic_name)
    async with running(platform, log) as runtime:
        await publish(runtime, noted(topic_name, "a", 1), noted(topic_name, "a", 2))
        await until_settled(runtime, "notes")
        (before,) = await fetch(runtime, "select last_offset, last_timestamp, last_crc from headrace.claim")
        assert before["last_offset"] == 1
        hole = NewRecord(topic_name, b"hole", None, [])
        await publish(runtime, hole, hole)
        await until_settled(runtime, "notes")
        (after,) = await fetch(runtime, "select last_offset, last_timestamp, last_crc from headrace.claim")
        assert after == before
        await publish(runtime, hole, noted(topic_name, "a", 4), hole, noted(topic_name, "a", 5), hole)
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2, 4, 5]}
        rows = await fetch(runtime, "select first_offset, next_offset from headrace.ledger order by sequence")
        assert [tuple(row) for row in rows] == [(0, 2), (2, 4), (4, 8), (8, 9)]
    records = log._topics[topic_name][0]
    records[7] = msgspec.structs.replace(records[7], value=b"another")
    async with running(platform, log, is_refused=True) as runtime:
        assert "created again" in runtime.health.ready_report().body.decode()


@pytest.mark.parametrize("is_waiting", [False, True], ids=["events that come later", "events that wait already"])
async def test_restart_reads_nothing_twice_without_a_window(
    database_url: str, topic_name: str, is_waiting: bool
) -> None:
    """The record before the next offset is read to be compared, and not applied; the one at it is."""
    log, platform = MemoryLog(), notebook(settings_for(database_url, partitions=1, dedupe_window_ids=0), topic_name)
    await log.create(topic_name, 1)
    for number in (1, 2, 3):
        if is_waiting:
            await log.publish([noted(topic_name, "a", number)])
        async with running(platform, log) as runtime:
            if not is_waiting:
                await publish(runtime, noted(topic_name, "a", number))
            await until_settled(runtime, "notes")
            assert await pages(runtime) == {"a": list(range(1, number + 1))}
            assert sample(runtime, "log_fetched_records_total") == 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("update headrace.claim set log_id = 'elsewhere'", "was applied from elsewhere"),
        ("delete from headrace.claim where partition = 1", "has 2 partitions and had 1"),
        ("update headrace.claim set next_offset = 99 where partition = 1", "the claim's next offset is 99"),
    ],
    ids=["another log", "an added partition", "a log that lost its tail"],
)
async def test_log_that_does_not_continue_is_refused_at_the_claim(
    database_url: str, topic_name: str, damage: str, reason: str
) -> None:
    """Whatever was compared when the process started: the topic may have changed since."""
    platform = notebook(settings_for(database_url, partitions=2), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, *(noted(topic_name, f"page-{number}", 1) for number in range(10)))
        await until_settled(runtime, "notes")
        consumer, partitions = runtime.consumers["notes"], [TopicPartition(topic_name, number) for number in (0, 1)]
        await consumer.lost(partitions[1:])
        await execute(database_url, damage)
        await consumer.assigned(partitions)
        settled = (Phase.REFUSED, Phase.RUNNING)
        await until(lambda: consumer.workers[1].phase in settled, "the partition is refused, or read")
        assert runtime.health.readiness() == (False, ["partition_refused:notes/1"])
        assert reason in runtime.health.ready_report().body.decode()


@pytest.mark.parametrize(("start", "expected"), [("earliest", [1, 2, 3]), ("latest", [3])])
async def test_new_subscription_begins_where_its_start_says(
    database_url: str, topic_name: str, start: Any, expected: list[int]
) -> None:
    """Also one that was stopped before it had read anything."""
    log, settings = MemoryLog(), settings_for(database_url, partitions=1)
    await log.create(topic_name, 1)
    await log.publish([noted(topic_name, "a", 1), noted(topic_name, "a", 2)])
    async with running(notebook(settings, topic_name, start=start), log) as runtime:
        if start == "latest":
            await until_settled(runtime, "notes")
    await log.publish([noted(topic_name, "a", 3)])
    async with running(notebook(settings, topic_name, start=start), log) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": expected}
