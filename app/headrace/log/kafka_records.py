"""Turns what a fetch brought into Records, a record batch at a time.

aiokafka's `PartitionRecords` does what is about transactions, checksums and control batches. It also passes every
record through a generator and makes a ConsumerRecord of eleven fields, which costs more than parsing the record did:
two thirds of the time to read one. So the records themselves are made here. tests/unit/log/test_kafka_records.py fails
if aiokafka's side of this changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import proxy

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException

from headrace.log.ports import Record, StoredRecord


class RecordBatches(PartitionRecords):  # type: ignore[misc]
    """The records of one partition's part of a fetch, without those of aborted transactions."""

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
        topic, partition = self._tp
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if self._is_left_out(batch):
                yield [], batch.next_offset
                continue
            begin = self.next_fetch_offset
            yield (
                [
                    StoredRecord(topic, partition, r.offset, r.timestamp, r.key, r.value, r.headers)
                    for r in batch
                    if r.offset >= begin  # a compressed batch is sent whole
                ],
                batch.next_offset,
            )

    def _is_left_out(self, batch: Any) -> bool:
        """Tell whether the batch is a marker, or belongs to an aborted transaction."""
        if batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return bool(batch.is_control_batch)


def read_batches(consumer: AIOKafkaConsumer) -> None:
    """Make the consumer, which has been started, return Records instead of ConsumerRecords."""
    consumer._fetcher._records = _Results(consumer._fetcher._records)


class _Results(dict[Any, Any]):
    """What was fetched and not returned yet, by partition; aiokafka's fetcher puts it here and takes it out."""

    def __setitem__(self, partition: Any, result: Any) -> None:
        if type(result) is FetchResult:
            part = result._partition_records
            part.__class__ = RecordBatches
            part._records_iterator = part._unpack_records()  # nothing has been read of the one that it had
            result.getall = _Taking(proxy(result))  # no cycle, which would keep what was fetched
        super().__setitem__(partition, result)


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
