"""A reading of some partitions gives out each record once, and keeps little of what nobody has asked for."""

from __future__ import annotations

import random

import pytest

from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord, TopicPartition
from headrace.rebuild.reading import CHUNK_BYTES, CHUNK_RECORDS, LogReading

FIRST, SECOND = TopicPartition("sales", 0), TopicPartition("sales", 1)
KEYS = {partition_for(key, 2): key for key in (str(number).encode() for number in range(50))}


async def log_of(records: int, bytes_each: int = 1) -> MemoryLog:
    """Return a log with two partitions of so many records."""
    log = MemoryLog()
    await log.start()
    await log.create("sales", 2)
    for number in (0, 1):
        await log.publish([NewRecord("sales", KEYS[number], bytes(bytes_each), [])] * records)
    return log


def kept(reading: LogReading) -> int:
    return sum(len(records) for records in reading._fetched.values())


async def test_little_is_kept_of_what_is_behind_its_target() -> None:
    for records, bytes_each, most in ((30_000, 1, 2 * CHUNK_RECORDS), (60, 2**20, 2 * CHUNK_BYTES // 2**20)):
        log = await log_of(records, bytes_each)
        reading = await LogReading.start(log, {FIRST: 0, SECOND: 0})
        given = 0
        while taken := await reading.take({FIRST: 1, SECOND: records}):
            given += sum(map(len, taken.values()))
            assert kept(reading) <= most
        assert given == records + 1
        assert reading.positions == {FIRST: 1, SECOND: records}
        await reading.close()


async def test_each_record_is_given_once_whatever_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.rebuild.reading.CHUNK_RECORDS", 20)
    chance = random.Random(7)
    reading = await LogReading.start(await log_of(300), {FIRST: 0, SECOND: 0})
    given: dict[TopicPartition, list[int]] = {FIRST: [], SECOND: []}
    while reading.behind({FIRST: 300, SECOND: 300}):
        asked = chance.sample([FIRST, SECOND], chance.choice([1, 2]))
        targets = {each: min(300, reading.positions[each] + chance.randrange(40)) for each in asked}
        for each, records in (await reading.take(targets)).items():
            given[each] += [record.offset for record in records]
            assert given[each][-1] < targets[each]
        assert kept(reading) <= 40
    assert given == {FIRST: list(range(300)), SECOND: list(range(300))}
    await reading.close()
