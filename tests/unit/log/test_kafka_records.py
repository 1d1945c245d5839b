"""What a fetch brought, as Records; aiokafka's classes are real, the bytes are those that a broker would send."""

from __future__ import annotations

import gc
import struct
import weakref
from types import SimpleNamespace

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as KafkaPartition

from headrace.log.kafka_records import RecordBatches, _Results

PARTITION = KafkaPartition("notes", 3)


def batch(base: int, *values: bytes, producer: int = -1, transactional: bool = False) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, transactional, producer, 0, 0 if producer >= 0 else -1, 1_000_000)
    for index, value in enumerate(values):
        builder.append(index, 1_000 + index, b"key", value, [("name", b"ann")])
    return struct.pack(">q", base) + bytes(builder.build())[8:]


def batches(data: bytes, offset: int = 0, aborted: list[tuple[int, int]] | None = None) -> RecordBatches:
    records = MemoryRecords(data)
    return RecordBatches(PARTITION, records, aborted or [], offset, None, None, True, READ_COMMITTED)


def values(part: RecordBatches, most: int = 100) -> list[bytes | None]:
    return [record.value for record in part.take(most)]


def test_records_have_what_the_port_promises() -> None:
    (record,) = batches(batch(7, b"one"), 7).take(10)
    assert (record.topic, record.partition, record.offset, record.timestamp) == ("notes", 3, 7, 1_000)
    assert (record.key, record.value, list(record.headers)) == (b"key", b"one", [("name", b"ann")])


def test_taking_continues_within_and_behind_a_batch() -> None:
    part = batches(batch(0, b"0", b"1", b"2") + batch(3, b"3", b"4"))
    taken = [(values(part, 2), part.next_fetch_offset) for _ in range(4)]
    assert taken == [([b"0", b"1"], 2), ([b"2", b"3"], 4), ([b"4"], 5), ([], 5)]


def test_records_before_the_offset_are_left_out() -> None:
    assert values(batches(batch(0, b"0", b"1", b"2"), offset=2)) == [b"2"]


def test_aborted_records_are_left_out_and_passed() -> None:
    data = batch(0, b"0", producer=5, transactional=True) + batch(1, b"1", producer=6, transactional=True)
    part = batches(data + batch(2, b"2"), aborted=[(5, 0)])
    assert values(part) == [b"1", b"2"]
    part = batches(batch(0, b"0", b"1", producer=5, transactional=True), aborted=[(5, 0)])
    assert (values(part), part.next_fetch_offset) == ([], 2)


def test_damaged_batch_is_refused() -> None:
    data = bytearray(batch(0, b"one"))
    data[-4] ^= 1
    with pytest.raises(CorruptRecordException):
        batches(bytes(data)).take(1)


def test_fetch_result_hands_out_records_and_is_freed() -> None:
    state = SimpleNamespace(paused=False, position=0)
    state.consumed_to = lambda offset: setattr(state, "position", offset)
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    part = PartitionRecords(PARTITION, MemoryRecords(batch(0, b"0", b"1")), [], 0, None, None, True, READ_COMMITTED)
    results = _Results()
    results[PARTITION] = FetchResult(PARTITION, partition_records=part, assignment=assignment, backoff=0)
    assert [record.value for record in results[PARTITION].getall(1)] == [b"0"]
    assert (state.position, results[PARTITION].has_more()) == (1, True)
    assert [record.value for record in results[PARTITION].getall(5)] == [b"1"]
    assert (state.position, results[PARTITION].has_more()) == (2, False)
    gc.disable()
    try:
        result = weakref.ref(results.pop(PARTITION))
        assert result() is None, "no cycle keeps it"
    finally:
        gc.enable()
