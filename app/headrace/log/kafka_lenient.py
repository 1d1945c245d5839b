"""Reads a fetch response whose header names are not UTF-8, which aiokafka's own parser always refuses.

Only used after that parser raised. `RecordBatches` reads the batches as ever; those
given to it differ in one thing: bytes of a header name that are not UTF-8 are shown as `\\xNN`.
Source: Kafka documentation, "Message format", record batch version 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any

from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.util import decode_varint
from aiokafka.structs import TopicPartition as KafkaPartition

from headrace.log.kafka_records import RecordBatches
from headrace.log.ports import Record, TopicPartition

_PREFIX = Struct(">qi")  # base offset, length: the same in every version of the format
_MAGIC_AT = 16


def read(partition: TopicPartition, offset: int, part: Any, max_records: int) -> tuple[list[Record], int]:
    """Return the records of a raw response from the offset on, and the offset to read on from.

    `part` is the partition's fields behind the error code: high watermark, last stable offset, log start offset,
    aborted transactions, preferred replica, records (versions before 11 lack the replica, before 5 the start too).
    """
    aborted = part[3] if len(part) == 6 else part[-2]
    records = RecordBatches(
        KafkaPartition(*partition), _Batches(part[-1]), aborted, offset, None, None, True, READ_COMMITTED
    )
    return records.take(max_records), records.next_fetch_offset


class _Batches:
    """The part of aiokafka's MemoryRecords that PartitionRecords uses."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def has_next(self) -> bool:
        return self._position + _PREFIX.size <= len(self._data) and self._end() <= len(self._data)

    def next_batch(self) -> Any:
        start, self._position = self._position, self._end()
        batch = memoryview(self._data)[start : self._position]
        magic = batch[_MAGIC_AT]
        return _Batch(batch) if magic >= 2 else LegacyRecordBatch(batch, magic)

    def _end(self) -> int:
        length: int = _PREFIX.unpack_from(self._data, self._position)[1]
        return self._position + _PREFIX.size + length


class _Batch:
    """A batch of version 2: everything but the records themselves is left to aiokafka."""

    def __init__(self, data: memoryview) -> None:
        self._batch = _DefaultRecordBatchPy(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)  # the marker of a control batch

    def __iter__(self) -> Iterator[_DefaultRecordPy]:
        batch = iter(self._batch)  # decompresses
        data, at = bytes(batch._buffer), batch._pos
        for _ in range(batch._num_records):
            length, at = decode_varint(data, at)
            yield self._record(data, at)
            at += length

    def _record(self, data: bytes, at: int) -> _DefaultRecordPy:
        batch = self._batch
        _, at = decode_varint(data, at)  # attributes
        timestamp_delta, at = decode_varint(data, at)
        offset_delta, at = decode_varint(data, at)
        key, at = _bytes(data, at)
        value, at = _bytes(data, at)
        count, at = decode_varint(data, at)
        headers = []
        for _ in range(count):
            name, at = _bytes(data, at)
            content, at = _bytes(data, at)
            if name is None:
                raise CorruptRecordException("a header without a name")
            headers.append((name.decode("utf-8", "backslashreplace"), content))
        timestamp = batch.max_timestamp if batch.timestamp_type else batch.first_timestamp + timestamp_delta
        return _DefaultRecordPy(batch.base_offset + offset_delta, timestamp, batch.timestamp_type, key, value, headers)


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(data, at)
    if length < 0:
        return None, at
    return data[at : at + length], at + length
