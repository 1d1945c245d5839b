"""What the logs of a single process share: their membership, and the turns that partitions take."""

from __future__ import annotations

import pytest

from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, TopicPartition
from headrace.testing.conformance.log_suite import Seat


async def test_listener_that_fails_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Seat):
        calls = 0

        async def assigned(self, partitions: object, *, was_removed: bool = False) -> None:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("the first time fails")
            await super().assigned(partitions)  # type: ignore[arg-type]

    log = MemoryLog()
    await log.create("pages", 2)
    seat = Failing(log, "notes", ["pages"])
    await seat.start()

    await seat.owns(lambda owned: len(owned) == 2)
    assert "the first time fails" in caplog.text
    await seat.stop()


async def test_a_full_partition_starves_no_other() -> None:
    log = MemoryLog()
    full, other = TopicPartition("full", 0), TopicPartition("other", 0)
    for topic, _ in (full, other):
        await log.create(topic, 1)
    await log.publish([NewRecord("full", b"key", b"1", [])] * 50 + [NewRecord("other", b"key", b"2", [])])

    reader = await log.reader({full: 0, other: 0})
    fetched = [await reader.fetch(10, 2**20, 0.2) for _ in range(3)]
    await reader.close()

    assert [sum(len(each.get(partition, ())) for each in fetched) for partition in (full, other)] == [29, 1]
