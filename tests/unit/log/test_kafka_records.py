"""What a fetch brought, as Records; aiokafka's classes are real, the bytes are those that a broker would send.

Every test reads in C, from the bytes of the answer, and by aiokafka, as where the part in C is not installed.
"""

from __future__ import annotations

import gc
import random
import struct
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, patch

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.protocol import fetch
from aiokafka.record._crecords.cutil import crc32c_cython
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as KafkaPartition

from headrace.log.kafka_records import RecordBatches, _Listening, _Results
from headrace.log.ports import StoredRecord
from headrace.log.sizes import leading
from tests.support.in_c import IN_C as HAS_C
from tests.support.in_c import IN_PYTHON

PARTITION = KafkaPartition("notes", 3)


@pytest.fixture(params=[HAS_C, IN_PYTHON], autouse=True)
def in_c(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether the records are read in C."""
    with patch.object(RecordBatches, "answer", b""), patch(f"{__name__}.IN_C", request.param):
        yield IN_C


IN_C = True


def batch(base: int, *values: bytes, key: bytes = b"key", producer: int = -1, transactional: bool = False) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, transactional, producer, 0, 0 if producer >= 0 else -1, 1_000_000)
    for index, value in enumerate(values):
        builder.append(index, 1_000 + index, key, value, [("name", b"ann")])
    return struct.pack(">q", base) + bytes(builder.build())[8:]


def batches(data: bytes, offset: int = 0, aborted: list[tuple[int, int]] | None = None) -> RecordBatches:
    part = RecordBatches(PARTITION, MemoryRecords(data), aborted or [], offset, None, None, True, READ_COMMITTED)
    part.answer = data if IN_C else b""
    return part


def values(part: RecordBatches, most: int = 100) -> list[bytes | None]:
    return [record.value for record in part.take(most)]


def test_records_have_what_the_port_promises() -> None:
    (record,) = batches(batch(7, b"one"), 7).take(10)
    assert (record.topic, record.partition, record.offset, record.timestamp) == ("notes", 3, 7, 1_000)
    assert (record.key, record.value, list(record.headers)) == (b"key", b"one", [("name", b"ann")])
    assert isinstance(record, StoredRecord) is not IN_C
    assert leading([record], 1, 1_000) == (1, 3 + 3 + 64)


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


def sealed(data: bytes) -> bytes:
    """Return the batch with the checksum that its bytes have."""
    return data[:17] + struct.pack(">I", crc32c_cython(data[21:])) + data[21:]


def shown(part: RecordBatches) -> object:
    """Return all records and the offsets behind them, or the name of the error."""
    found: list[object] = []
    try:
        while taken := part.take(3):
            found += [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in taken]
            found.append(part.next_fetch_offset)
    except Exception as error:
        return type(error).__name__
    return found


def test_all_codecs_and_kinds_of_times_are_read() -> None:
    for codec in range(5):
        builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1_000_000)
        for number in range(3):
            builder.append(number * 2, 2_000 + number, None, b"v" * number * 200, [])
        data = bytes(builder.build())
        for kind in (data, sealed(data[:22] + bytes([data[22] | 8]) + data[23:])):  # of the log's own time
            (*records,) = batches(kind).take(10)
            assert [record.offset for record in records] == [0, 2, 4]
            times = [2_000, 2_001, 2_002] if kind is data else [2_002] * 3
            assert [record.timestamp for record in records] == times
            assert [len(record.value or b"") for record in records] == [0, 200, 400]
            assert {isinstance(record, StoredRecord) for record in records} == {not IN_C}


def ends_of_both(data: bytes) -> tuple[object, object]:
    """Return what comes of the bytes, as this test reads, and by aiokafka."""
    part, other = batches(data), batches(data)
    other.answer = b""
    return shown(part), shown(other)


def drawn_batch(chance: random.Random) -> bytes:
    """Return a batch of any version and codec, with whatever a producer may write."""
    if not chance.randrange(8):
        legacy = LegacyRecordBatchBuilder(chance.choice([0, 1]), chance.choice([0, 1]), 100_000)
        for number in range(chance.randint(1, 3)):
            legacy.append(number, 1_000, b"k", b"v" * number)
        return bytes(legacy.build())
    producer = chance.choice([-1, 5])
    codec = chance.choice([0, 0, 1, 2, 3, 4])
    builder = DefaultRecordBatchBuilder(2, codec, not chance.randrange(5), producer, 0, 0, 1_000_000)
    step = chance.choice([1, 1, 3])
    for number in range(chance.randint(0, 3)):
        name = chance.choice(["content-type", "traceparent", "\u00e4", ""])
        header = name, chance.choice([b"", None, b"application/cloudevents+json"])
        key, value = chance.choice([None, b"", b"k"]), chance.choice([None, b"", b"v" * 50 * number])
        builder.append(
            number * step, chance.choice([-5, 0, 2**62]), key, value, [header] * chance.choice([0, 1, 3, 70])
        )
    return bytes(builder.build())


def changed(data: bytes, chance: random.Random) -> bytes:
    """Return the batch with other bytes, fields or lengths, and the checksum that fits."""
    odd = bytearray(data)
    if chance.randrange(3):
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(min(chance.choice([21, 57, 61]), len(odd) - 1), len(odd))
            odd[at] = chance.choice([0, 1, 2, 0x7F, 0x80, 0xFF, chance.randrange(256)])
    if not chance.randrange(10):
        odd = odd[: chance.randrange(26, len(odd) + 1)]
        odd[8:12] = struct.pack(">i", len(odd) - 12)
    if not chance.randrange(30):
        odd[8:12] = struct.pack(">i", chance.choice([-13, -1, 0, 5, len(odd) - 11, 2**31 - 1]))
    return sealed(bytes(odd))


def test_malformed_batches_end_as_they_do_in_aiokafka() -> None:
    """Whatever is changed behind the checksum, and that made to fit: the same records come of it, or the same error."""
    chance, ends = random.Random(1), set[bool]()
    for _ in range(3_000):
        drawn = [drawn_batch(chance) for _ in range(chance.randint(1, 3))]
        data = b"".join(changed(each, chance) if each[16] == 2 else each for each in drawn)
        if not chance.randrange(10):
            data = data[: chance.randrange(len(data))]
        try:
            MemoryRecords(data)
        except Exception:  # noqa: S112 # the fetcher itself refuses it
            continue
        end, other = ends_of_both(data)
        assert end == other, data.hex()
        ends.add(isinstance(end, list))
    assert ends == {True, False}


def test_unknown_codec_is_an_error_of_kafka() -> None:
    for codec in (5, 6, 7):
        data = bytearray(batch(0, b"one"))
        data[22] |= codec
        with pytest.raises(UnsupportedCodecError):
            batches(sealed(bytes(data))).take(1)


def test_time_of_the_log_may_be_negative() -> None:
    data = bytearray(batch(0, b"one"))
    data[22] |= 8
    data[35:43] = struct.pack(">q", -5)
    (record,) = batches(sealed(bytes(data))).take(1)
    assert record.timestamp == -5


def test_batch_without_its_whole_header_is_refused() -> None:
    """One that ends before its number of records, and says that they are compressed."""
    data = bytearray(batch(0, b"one")[:28])
    data[8:12], data[22] = struct.pack(">i", 16), 1
    end, other = ends_of_both(sealed(bytes(data)))
    assert isinstance(end, str)
    assert end == other


def test_compacted_and_control_batches_are_passed() -> None:
    """Of a compacted batch the last record may be gone, or all of them; its end stays."""
    compacted, empty = bytearray(batch(0, b"0", b"1")), bytearray(batch(8))
    control = bytearray(batch(9, b"marker", key=bytes([0, 0, 0, 1])))  # of a commit
    compacted[23:27] = struct.pack(">i", 6)
    empty[23:27] = struct.pack(">i", 0)
    control[22] |= 0x20
    part = batches(b"".join(sealed(bytes(each)) for each in (compacted, empty, control)))
    assert (values(part, 2), part.next_fetch_offset) == ([b"0", b"1"], 7)
    assert (values(part), part.next_fetch_offset) == ([], 10)


def test_timestamps_and_offsets_may_wrap() -> None:
    """They are what the bytes say, be it more than a number of 64 bits holds."""
    data = bytearray(batch(2**63 - 1, b"0", b"1"))
    data[27:35] = struct.pack(">q", 2**63 - 1)
    end, other = ends_of_both(sealed(bytes(data)))
    assert end == other


async def test_bytes_of_an_answer_go_to_its_own_partition() -> None:
    """aiokafka hides the bytes that it parses, so they are taken from the answer that it parses just then."""
    results = _Results()
    of_this, of_other = batch(0, b"this"), batch(0, b"other")
    topics: list[Any] = [("notes", [(3, 0, 1, of_this), (4, 0, 1, of_other)]), ("others", [(3, 0, 1, of_other)])]
    client = SimpleNamespace(send=AsyncMock(return_value=SimpleNamespace(API_KEY=1, topics=topics)), hosts=["a"])
    listening = _Listening(client, results)
    assert listening.hosts == ["a"]
    await listening.send(1, None)
    for partition in (PARTITION, KafkaPartition("notes", 4), KafkaPartition("notes", 5)):
        part = PartitionRecords(partition, MemoryRecords(of_this), [], 0, None, None, True, READ_COMMITTED)
        results[partition] = FetchResult(partition, partition_records=part, assignment=None, backoff=0)
    answers = [result._partition_records.answer for result in results.values()]
    assert answers == [of_this, of_other, b""]
    client.send.return_value = SimpleNamespace(API_KEY=2, topics=topics)  # an answer about offsets
    await listening.send(1, None)
    assert not results.answer


def test_bytes_are_the_last_field_in_every_version() -> None:
    """Versions below 4 have no transactions; aiokafka itself takes the last field."""
    found = [each for name, each in vars(fetch).items() if name.startswith("FetchResponse_v")]
    assert len(found) >= 12
    for response in found:
        topics = dict(zip(response.SCHEMA.names, response.SCHEMA.fields, strict=True))["topics"]
        partitions = topics.array_of.fields[1].array_of
        assert (partitions.names[0], partitions.names[-1]) == ("partition", "message_set")
