"""The embedded log: records in the platform's own Postgres, for one process.

```
publish() ─┐
publish() ─┼─▶ queue ──▶ writer: everything that waits, in one statement = one commit = one flush ──▶ readers are woken
publish() ─┘
```
The writer's connection holds an advisory lock of the session, so no second process writes, and a process whose
connection was lost cannot write until it has the lock again. `embedded_retention` deletes old records.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from itertools import count

from headrace import sql
from headrace.database.pool import Pool
from headrace.errors import TransportError
from headrace.log.embedded_reader import EmbeddedReader
from headrace.log.embedded_session import EmbeddedSession, unavailable
from headrace.log.local import LocalMembership, Wakeups
from headrace.log.partitioner import partition_for
from headrace.log.ports import AssignmentListener, Bounds, NewRecord, Position, TopicInfo, TopicPartition
from headrace.log.refusals import check_topic_name, no_such_partition, no_such_topic
from headrace.log.stored import pack_headers

WAITING_CALLS = 1_000
TRANSACTION_RECORDS = 5_000
TRANSACTION_BYTES = 16 * 2**20
"""With so many a transaction takes no further call: Postgres refuses a message of a gigabyte, and all calls with it."""
STOP_SECONDS = 5.0


class EmbeddedLog:
    """Keeps records in the tables `headrace.log_...`; what was published survives a crash of everything at once."""

    system = "headrace"

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._session = EmbeddedSession(pool)
        self._queue: asyncio.Queue[_Call] = asyncio.Queue(WAITING_CALLS)
        self._writer: asyncio.Task[None] | None = None
        self._partitions: dict[str, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._wakeups = Wakeups()
        self._spread = count()

    async def start(self) -> None:
        """Take the log for this process. Raises: ConfigurationError (another process has it), TransportError."""
        if self._writer is None:
            await self._session.connection()
            self._writer = asyncio.get_running_loop().create_task(self._write(), name="embedded log writer")

    async def stop(self) -> None:
        """Write what waits, then release the log to other processes. Never raises."""
        if self._writer is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._queue.join()
            writer, self._writer = self._writer, None
            writer.cancel()
            await asyncio.wait({writer})
            self._refuse_waiting()
        await self._session.close()

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append the records, all or none; returns after the commit. Concurrent calls share one commit."""
        for topic in {record.topic for record in records} - self._partitions.keys():
            if topic not in await self.topics([topic]):
                raise no_such_topic(topic)
        if not records:
            return []
        if not self._is_open():
            raise TransportError("the embedded log is not started.")
        call = _Call([(self._partition_of(record), record) for record in records])
        await self._queue.put(call)
        if not self._is_open():  # stopped while the call waited for its place in the queue
            self._refuse_waiting()
        return await call.answer

    async def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """Return what exists of the named topics."""
        with unavailable():
            rows = await self._pool.fetch(sql.log.TOPICS, list(names))
        self._partitions |= {row["topic"]: row["partitions"] for row in rows}
        return {row["topic"]: TopicInfo(row["topic"], row["partitions"], f"embedded:{row['born']}") for row in rows}

    async def create(self, topic: str, partitions: int) -> None:
        """Create the topic; nothing happens if it exists."""
        check_topic_name(topic, partitions)
        with unavailable():
            await self._pool.execute(sql.log.CREATE_TOPIC, topic, partitions)

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Return the first and the next offset of each partition."""
        with unavailable():
            rows = await self._pool.fetch(
                sql.log.BOUNDS, [topic for topic, _ in partitions], [number for _, number in partitions]
            )
        found = {}
        for topic, partition, next_offset, first in rows:
            found[TopicPartition(topic, partition)] = Bounds(
                next_offset if first is None else first, next_offset, next_offset
            )
        for partition in partitions:
            if partition not in found:
                exists = await self.topics([partition.topic])
                raise no_such_partition(partition) if exists else no_such_topic(partition.topic)
        return found

    async def offset_at(self, partition: TopicPartition, milliseconds: int) -> int:
        """Return the offset of the first record of this time or later."""
        end = (await self.bounds([partition]))[partition].end
        with unavailable():
            first: int | None = await self._pool.fetchval(sql.log.FIRST_SINCE, *partition, milliseconds)
        return end if first is None else first

    async def reader(self, positions: Mapping[TopicPartition, int]) -> EmbeddedReader:
        """Return a reader that starts at the given offsets."""
        for partition, bounds in (await self.bounds(list(positions))).items():
            self._grow(partition, bounds.end)
        return EmbeddedReader(self, self._pool, positions, self._ends, self._wakeups)

    def membership(
        self, group: str, topics: Sequence[str], listener: AssignmentListener, identity: str
    ) -> LocalMembership:
        """Return the only seat there is."""
        return LocalMembership(self, topics, listener)

    def _is_open(self) -> bool:
        return self._writer is not None

    def _partition_of(self, record: NewRecord) -> TopicPartition:
        partitions = self._partitions[record.topic]
        number = next(self._spread) % partitions if record.key is None else partition_for(record.key, partitions)
        return TopicPartition(record.topic, number)

    def _grow(self, partition: TopicPartition, end: int) -> None:
        if end > self._ends.get(partition, -1):
            self._ends[partition] = end
            self._wakeups.ring(partition)

    async def _write(self) -> None:
        while True:
            calls = [await self._queue.get()]
            taken, size = len(calls[0].records), calls[0].size_bytes
            while taken < TRANSACTION_RECORDS and size < TRANSACTION_BYTES and not self._queue.empty():
                calls.append(self._queue.get_nowait())
                taken += len(calls[-1].records)
                size += calls[-1].size_bytes
            try:
                await self._append(calls)
            except Exception as error:
                failure = error if isinstance(error, TransportError) else _refused(error)
                for call in calls:
                    call.fail(failure)
            finally:
                for call in calls:
                    call.fail(_stopped())  # those that have no answer yet: the writer was cancelled
                    self._queue.task_done()

    def _refuse_waiting(self) -> None:
        while not self._queue.empty():  # each that leaves makes room for one that waits to enter, and does the same
            self._queue.get_nowait().fail(_stopped())

    async def _append(self, calls: Sequence[_Call]) -> None:
        """Write the records of the calls in one transaction, then answer each."""
        records = [placed for call in calls for placed in call.records]
        sizes: dict[TopicPartition, int] = {}
        numbers = []
        for partition, _ in records:
            number = sizes.get(partition, 0)
            numbers.append(number)
            sizes[partition] = number + 1
        connection = await self._session.connection(self._reload)
        try:
            with unavailable():
                rows = await connection.fetch(
                    sql.log.APPEND,
                    [topic for topic, _ in sizes],
                    [number for _, number in sizes],
                    list(sizes.values()),
                    [partition.topic for partition, _ in records],
                    [partition.partition for partition, _ in records],
                    numbers,
                    [record.key for _, record in records],
                    time.time_ns() // 1_000_000,
                    [record.value for _, record in records],
                    [pack_headers(record.headers) for _, record in records],
                )
        except BaseException:
            await self._session.drop()  # the outcome may be unknown: look at the log again before the next write
            raise
        first = {TopicPartition(row["topic"], row["partition"]): int(row["first_offset"]) for row in rows}
        positions = iter(Position(*placed[0], first[placed[0]] + n) for placed, n in zip(records, numbers, strict=True))
        for call in calls:
            call.keep([next(positions) for _ in call.records])
        for partition, size in sizes.items():
            self._grow(partition, first[partition] + size)

    async def _reload(self) -> None:
        """After a lost connection: records whose commit was in doubt may be there, and readers must see them."""
        for partition, bounds in (await self.bounds(list(self._ends))).items():
            self._grow(partition, bounds.end)


def _stopped() -> TransportError:
    """The error for records that the log no longer takes; whether it has them is not known."""
    return TransportError("the embedded log was stopped before it had the records.")


def _refused(error: Exception) -> TransportError:
    reason = str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__
    return TransportError(f"the embedded log did not take the records: {reason}.")


class _Call:
    """The records of one publish(), with their partitions."""

    def __init__(self, records: list[tuple[TopicPartition, NewRecord]]) -> None:
        self.records = records
        self.size_bytes = sum([len(record.key or b"") + len(record.value or b"") for _, record in records])
        self.answer: asyncio.Future[list[Position]] = asyncio.get_running_loop().create_future()

    def keep(self, positions: list[Position]) -> None:
        if not self.answer.done():  # its caller may have been cancelled
            self.answer.set_result(positions)

    def fail(self, error: TransportError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
