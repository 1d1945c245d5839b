"""The batches of one partition, sent in order and one at a time, each until it is kept, refused or given up.

Concurrent calls share batches: while one is under way, the next collects. So no call waits for a timer if the partition
is idle and `linger_seconds` is 0. A future per batch instead of one per record makes publishing five times as cheap.

A batch is sent again as it was, with the same producer id and sequence number, until the request timeout has passed;
so the broker recognises what it already has. After that its outcome is unknown. What waits behind it fails with it, so
that no record of a call is kept behind a gap, and the queue takes a new producer id, since the broker would not accept
the gap in the old one's sequence. Whoever publishes again is recognised by the event ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from aiokafka.errors import (
    BrokerResponseError,
    DuplicateSequenceNumber,
    KafkaError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition as KafkaPartition

from headrace.errors import HeadraceError, RecordTooLargeError, TransportError
from headrace.log.kafka_client import KafkaClient
from headrace.log.kafka_leader import Leader
from headrace.log.ports import NewRecord, Position, TopicPartition, positions_of
from headrace.settings import KafkaSettings

ProducerId = tuple[int, int]
"""The id and its epoch."""

RETRY_SECONDS = 0.1
SLOW_SECONDS = 1.0
SEQUENCE_NUMBERS = 2**31
SMALLEST_BATCH_BYTES = 1_024
CODECS = {
    "none": DefaultRecordBatch.CODEC_NONE,
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "snappy": DefaultRecordBatch.CODEC_SNAPPY,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}


class _Publisher(Protocol):
    async def connected(self) -> KafkaClient: ...
    def leader(self, client: KafkaClient, node: int) -> Leader: ...
    async def refresh(self, client: KafkaClient) -> None: ...
    async def producer_id(self, client: KafkaClient) -> ProducerId: ...
    async def check_exists(self, topic: str) -> None: ...
    def explain(self, error: BaseException) -> HeadraceError: ...


class Batch:
    """Records of one partition that are sent together."""

    def __init__(self, partition: TopicPartition, codec: int, batch_bytes: int) -> None:
        self._partition = partition
        self._builder: Any = DefaultRecordBatchBuilder(
            2, codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=batch_bytes
        )
        self.records: list[NewRecord] = []
        self.size_bytes = 0
        """Before compression; known once it was built."""
        self.kept: asyncio.Future[Sequence[int | RecordTooLargeError]] = asyncio.get_running_loop().create_future()
        """For each record its offset, or why it was refused."""
        self.kept.add_done_callback(lambda kept: kept.cancelled() or kept.exception())  # its callers may be gone
        self.kept.add_done_callback(self._wake)
        self._waiters: list[asyncio.Future[None]] = []

    def extend(self, records: Sequence[NewRecord]) -> range:
        """Take the first of the records, as many as fit; return their numbers. An empty batch takes one of any size."""
        append, held = self._builder.append, self.records
        first = len(held)
        for record in records:
            if append(len(held), None, record.key, record.value, record.headers) is None:
                break
            held.append(record)
        return range(first, len(held))

    async def ended(self) -> None:
        """Return once the batch is kept or given up. Cancel: safe for the others who wait."""
        if not self.kept.done():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _wake(self, _: object) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def positions(self, numbers: range) -> Iterator[Position]:
        """Return where the records of these numbers are. Raises, as the iterator does, what publish() does."""
        outcomes = self.kept.result()[numbers.start : numbers.stop]
        if isinstance(outcomes, range):
            return positions_of(*self._partition, outcomes)
        return map(self._position, outcomes)

    def _position(self, outcome: int | RecordTooLargeError) -> Position:
        if isinstance(outcome, RecordTooLargeError):
            raise outcome
        return Position(*self._partition, outcome)

    def build(self, producer: ProducerId, sequence: int) -> bytes:
        """Return the batch as it is sent; nothing can be appended afterwards."""
        self.size_bytes = self._builder.size()
        self._builder.set_producer_state(*producer, sequence)
        return bytes(self._builder.build())


class Placed(NamedTuple):
    """Records that follow each other in a batch."""

    batch: Batch
    numbers: range


class SendQueue:
    """What one partition has to send."""

    def __init__(self, publisher: _Publisher, partition: TopicPartition, settings: KafkaSettings) -> None:
        self._publisher = publisher
        self._partition = partition
        self._codec = CODECS[settings.compression]
        self._most_batch_bytes = self._batch_bytes = settings.batch_bytes
        self._linger_seconds = settings.linger_seconds
        self._timeout_seconds = settings.request_timeout_seconds
        self._producer: ProducerId | None = None
        self._sequence = 0
        self._is_slow = False
        self._waiting: deque[Batch] = deque()
        self._is_full: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None

    def append(self, records: Sequence[NewRecord]) -> list[Placed]:
        """Put the records into the open batch, and into new ones when it is full; return where they are."""
        placed: list[Placed] = []
        if self._waiting and (numbers := self._waiting[-1].extend(records)):
            placed.append(Placed(self._waiting[-1], numbers))
            records = records[len(numbers) :]
        while records:
            placed.append(self._begin(records))
            records = records[len(placed[-1].numbers) :]
        return placed

    def _begin(self, records: Sequence[NewRecord]) -> Placed:
        """Open a batch with the first of the records."""
        if self._is_full is not None and self._waiting and not self._is_full.done():
            self._is_full.set_result(None)
        batch = Batch(self._partition, self._codec, self._batch_bytes)
        numbers = batch.extend(records)  # before it waits: a record that cannot be written must leave nothing behind
        assert numbers, "an empty batch takes a record of any size"
        self._waiting.append(batch)
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._send_all())
        return Placed(batch, numbers)

    async def _send_all(self) -> None:
        """Send what waits, until nothing does. Whatever ends it, every batch is answered: publishers wait for that."""
        batch: Batch | None = None
        try:
            if self._linger_seconds:
                self._is_full = asyncio.get_running_loop().create_future()
                await asyncio.wait({self._is_full}, timeout=self._linger_seconds)
            while self._waiting:
                batch = self._waiting.popleft()
                batch.kept.set_result(await self._outcomes(batch))
        except HeadraceError as error:
            self._fail(batch, error)
        except BaseException as error:
            cause = f"{type(error).__name__}: {error}".rstrip(": ")
            self._fail(batch, TransportError(f"sending to {self._partition.topic} ended with {cause}; publish again."))
            if not isinstance(error, Exception):
                raise
        finally:
            self.task = None

    def _fail(self, batch: Batch | None, error: HeadraceError) -> None:
        self._producer = None
        for failed in (batch, *self._waiting):
            if failed is not None and not failed.kept.done():
                failed.kept.set_exception(error)
        self._waiting.clear()

    async def _outcomes(self, batch: Batch) -> Sequence[int | RecordTooLargeError]:
        """Send the batch; if the broker finds it too large, its halves, until only what is too large alone is left."""
        try:
            offset = await self._send(batch)
        except (MessageSizeTooLargeError, RecordListTooLargeError):
            if len(batch.records) == 1:
                return [_too_large(self._partition.topic)]
        else:
            return range(offset, offset + len(batch.records))
        outcomes: list[int | RecordTooLargeError] = []
        middle = len(batch.records) // 2
        for records in (batch.records[:middle], batch.records[middle:]):
            half = Batch(self._partition, self._codec, self._most_batch_bytes)
            half.extend(records)
            outcomes += await self._outcomes(half)
        if not any(isinstance(outcome, RecordTooLargeError) for outcome in outcomes):
            fitting = max(SMALLEST_BATCH_BYTES, batch.size_bytes // 2)  # the topic takes smaller batches only
            self._batch_bytes = min(self._batch_bytes, fitting)
        return outcomes

    async def _send(self, batch: Batch) -> int:
        """Return the offset of the first record. Raises: HeadraceError, or the broker's refusal of the size."""
        last: BaseException | None = None
        data: bytes | None = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while True:
                    client: KafkaClient | None = None
                    try:
                        client = await self._publisher.connected()
                        if self._producer is None:
                            self._producer, self._sequence = await self._publisher.producer_id(client), 0
                        if data is None:
                            data = batch.build(self._producer, self._sequence)
                        offset = await self._request(client, data)
                    except (MessageSizeTooLargeError, RecordListTooLargeError):
                        raise
                    except (KafkaError, OSError, TransportError) as error:
                        if isinstance(error, BrokerResponseError) and not error.retriable:
                            raise self._explain(error) from error
                        last = error
                        await asyncio.sleep(RETRY_SECONDS)
                        await self._look_again(client)
                    else:
                        self._sequence = (self._sequence + len(batch.records)) % SEQUENCE_NUMBERS
                        return offset
        except TimeoutError as error:
            silent = TimeoutError(f"no acknowledgement within {self._timeout_seconds:g} s")
            raise self._publisher.explain(last or silent) from error

    async def _request(self, client: KafkaClient, data: bytes) -> int:
        """Send the batch to the partition's leader once. Raises: KafkaError."""
        topic, partition = self._partition
        leader = client.cluster.leader_for_partition(KafkaPartition(topic, partition))
        if leader is None or leader < 0:
            raise LeaderNotAvailableError(f"{topic}[{partition}]")
        started, was_slow, self._is_slow = time.monotonic(), self._is_slow, True
        offset = await self._publisher.leader(client, leader).send(self._partition, data, alone=was_slow)
        self._is_slow = time.monotonic() - started > SLOW_SECONDS
        return offset

    async def _look_again(self, client: KafkaClient | None) -> None:
        """Ask who leads the partition now. Raises: LogMismatchError (topic gone), TransportError (partition gone)."""
        topic, partition = self._partition
        if client is not None:
            await self._publisher.refresh(client)  # first, so that a later call sees what has changed
            known = client.cluster.partitions_for_topic(topic)
            if known is None:
                with contextlib.suppress(TransportError):
                    await self._publisher.check_exists(topic)
            elif partition not in known:
                raise TransportError(f"the topic {topic!r} was created again with fewer partitions: publish again.")

    def _explain(self, error: BrokerResponseError) -> HeadraceError:
        if isinstance(error, DuplicateSequenceNumber):
            return TransportError(
                f"Kafka has records for {self._partition.topic} but cannot say where: publish them again."
            )
        return self._publisher.explain(error)


def _too_large(topic: str) -> RecordTooLargeError:
    return RecordTooLargeError(
        f"Kafka refused an event for {topic} as too large: HEADRACE_KAFKA_MAX_RECORD_BYTES must not exceed the topic's "
        "max.message.bytes."
    )
