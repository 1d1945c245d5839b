"""Turns what a fetch brought into Records, a record batch at a time.

aiokafka's `PartitionRecords` does what is about transactions, checksums and control batches. It also passes every
record through a generator and makes a ConsumerRecord of eleven fields, which costs more than parsing the record did:
two thirds of the time to read one. So the records themselves are made here: in C, straight from the bytes of the
broker's answer, if that is installed, and else from aiokafka's. tests/unit/log/test_kafka_records.py fails if
aiokafka's side of this changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import proxy

from aiokafka import AIOKafkaConsumer
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.protocol.fetch import FetchRequest

from headrace.log.ports import Record, StoredRecord
from headrace.native import speedups

VERSION = 2
_LENGTH_AT, _LENGTH_BYTES, _MAGIC_AT, _COUNT_AT, _RECORDS_AT = 8, 4, 16, 57, 61
"""Places in a batch of version 2. Its length counts what is behind it, in every version."""
_DECOMPRESS: dict[int, Callable[[bytes], bytes]] = {
    1: gzip_decode,
    2: snappy_decode,
    3: lz4_decode,
    4: zstd_decode,
}


class RecordBatches(PartitionRecords):  # type: ignore[misc]
    """The records of one partition's part of a fetch, without those of aborted transactions."""

    answer = b""
    """The bytes that the records are made of; empty if they are not known."""
    _surplus: tuple[list[Record], int] | None = None
    """Records of a batch that did not fit into the last `take`, and the offset behind them."""

    def take(self, max_records: int) -> list[Record]:
        """Return up to `max_records` of the next records; fewer if there are no more.

        `next_fetch_offset` is then the offset to read on from. Raises: UnicodeDecodeError (a header's name).
        """
        taken: list[Record] = []
        while len(taken) < max_records:
            records, behind = self._surplus or next(self._records_iterator, (None, 0))
            self._surplus = None
            if records is None:
                break
            room = max_records - len(taken)
            if len(records) > room:
                self._surplus = records[room:], behind
                records, behind = records[:room], records[room].offset
            taken += records
            self.next_fetch_offset = behind
        return taken

    def _unpack_records(self) -> Iterator[tuple[list[Record], int]]:
        """Yield the records of each batch, and the offset behind it. Replaces aiokafka's method of that name."""
        begin = 0
        while self._records.has_next():
            batch = self._records.next_batch()
            length = int.from_bytes(self.answer[begin + _LENGTH_AT : begin + _LENGTH_AT + _LENGTH_BYTES])
            data = self.answer[begin : begin + _LENGTH_AT + _LENGTH_BYTES + length]
            begin += len(data)
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if self._is_left_out(batch):
                yield [], batch.next_offset
                continue
            yield self._records_of(batch, data), batch.next_offset

    def _records_of(self, batch: Any, data: bytes) -> list[Record]:
        """Return the records of a batch, and of these bytes, from `next_fetch_offset` on: a batch is sent whole."""
        topic, partition = self._tp
        since = self.next_fetch_offset
        if speedups is not None and len(data) >= _RECORDS_AT and data[_MAGIC_AT] == VERSION and _is_known(batch):
            count = int.from_bytes(data[_COUNT_AT:_RECORDS_AT], signed=True)
            at, codec = _RECORDS_AT, batch.compression_type
            if codec:
                at, data = 0, _DECOMPRESS[codec](data[_RECORDS_AT:])
            times = batch.first_timestamp, batch.max_timestamp if batch.timestamp_type else -1
            place = topic, partition, batch.base_offset
            records: list[Record] | None = speedups.read_records(data, at, count, *place, *times, since)
            if records is not None:
                return records
        return [
            StoredRecord(topic, partition, r.offset, r.timestamp, r.key, r.value, r.headers)
            for r in batch
            if r.offset >= since
        ]

    def _is_left_out(self, batch: Any) -> bool:
        """Tell whether the batch is a marker, or belongs to an aborted transaction."""
        if batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return bool(batch.is_control_batch)


def _is_known(batch: Any) -> bool:
    """Tell whether the records are compressed in a way, and have times, that are not aiokafka's to judge."""
    codec = batch.compression_type
    return (not codec or codec in _DECOMPRESS) and not (batch.timestamp_type and batch.max_timestamp < 0)


def read_batches(consumer: AIOKafkaConsumer) -> None:
    """Make the consumer, which has been started, return Records instead of ConsumerRecords."""
    fetcher = consumer._fetcher
    fetcher._records = results = _Results(fetcher._records)
    fetcher._client = _Listening(fetcher._client, results)


class _Results(dict[Any, Any]):
    """What was fetched and not returned yet, by partition; aiokafka's fetcher puts it here and takes it out."""

    answer: Mapping[Any, bytes | None] | None = None
    """The bytes of each partition in what a broker has just said, whose parts are put here before anything else
    happens; None if that was no fetch."""

    def __setitem__(self, partition: Any, result: Any) -> None:
        if type(result) is FetchResult:
            part = result._partition_records
            part.__class__ = RecordBatches
            part.answer = (self.answer or {}).get(partition) or b""
            part._records_iterator = part._unpack_records()  # nothing has been read of the one that it had
            result.getall = _Taking(proxy(result))  # no cycle, which would keep what was fetched
        super().__setitem__(partition, result)


def _records_in(answer: Any) -> dict[Any, bytes | None]:
    """Return the bytes of each partition, the last field of its part in every version: one walk for all of them."""
    return {(topic, part[0]): part[-1] for topic, parts in answer.topics for part in parts}


class _Listening:
    """The client of a fetcher, which notes what a broker says: aiokafka hides the bytes that it parses."""

    def __init__(self, client: Any, results: _Results) -> None:
        self._client, self._results = client, results

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, *arguments: Any, **options: Any) -> Any:
        self._results.answer = None
        answer = await self._client.send(*arguments, **options)
        self._results.answer = _records_in(answer) if answer.API_KEY == FetchRequest.API_KEY else None
        return answer


class _Taking:
    """Replaces the `getall` of one fetch result."""

    def __init__(self, result: FetchResult) -> None:
        self._result = result

    def __call__(self, max_records: int) -> list[Record]:
        result = self._result
        if not result.check_assignment(result._topic_partition) or not result.has_more():
            return []
        part = result._partition_records
        taken: list[Record] = part.take(max_records)
        result._update_position()
        if len(taken) < max_records:
            result._partition_records = None
        return taken
