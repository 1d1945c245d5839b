"""Publishes the emits of one partition after their commit, in order, until the log has them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from opentelemetry.trace import Span

from headrace.backoff import Backoff
from headrace.cloudevents import decode_record
from headrace.database.pool import ConnectionFactory
from headrace.errors import HeadraceError, RecordTooLargeError
from headrace.handlers.subscription import Subscription
from headrace.ledger.dead_letters import store_refused_emit
from headrace.ledger.rows import read_unmarked
from headrace.log.ports import Log, NewRecord, TopicPartition
from headrace.stopping import is_being_cancelled
from headrace.telemetry.facts import EmitFacts, EventLink
from headrace.telemetry.links import MAX_CALLS
from headrace.telemetry.logging import get_logger
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.trace_context import names_sampled
from headrace.telemetry.tracing import Tracing

logger = get_logger(__name__)

CALL_BYTES = 16 * 2**20
"""The most bytes of one publish, unless it is a single emit: Postgres, where the embedded log is, refuses a gigabyte
whenever it is sent, and nothing behind it would ever leave."""


class Pending(NamedTuple):
    """The emits of one ledger row; `since` is a monotonic time, `span` the batch's if it is traced."""

    sequence: int
    records: Sequence[NewRecord]
    span: Span | None
    since: float


class Relay:
    """Takes (ledger sequence, records) after each commit, and publishes them.

    An emit that the log refuses for its size, now and for ever, becomes a dead letter alone; all others leave.
    """

    def __init__(
        self,
        log: Log,
        metrics: Metrics,
        tracing: Tracing,
        subscription: Subscription,
        partition: TopicPartition,
        through: int,
        lend: ConnectionFactory,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._tracing = tracing
        self._subscription, self._group = subscription.name, subscription.group
        self._partition = partition
        self._through = through
        """The last row whose emits are in the log, and those of all rows before it."""
        self._has_caught_up = False
        """True once everything that an earlier owner committed is in the log."""
        self._lend = lend
        self._pending: deque[Pending] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def pending(self) -> int:
        """Records committed and not yet acknowledged by the log."""
        return sum(len(pending.records) for pending in self._pending)

    @property
    def oldest_pending_seconds(self) -> float:
        """Age of the oldest such record; 0 when none waits."""
        return time.monotonic() - self._pending[0].since if self._pending else 0.0

    def can_mark_through(self, sequence: int, *, emits: bool) -> int:
        """Return what a batch that becomes ledger row `sequence` may write into the claim's `emitted_through`.

        An owner that is stopped before it has published what an earlier one left marks no more than it has published.
        """
        if not self._has_caught_up:
            return self._through
        if self._pending:
            return self._pending[0].sequence - 1
        return sequence - 1 if emits else sequence

    async def publish_unmarked(self) -> None:
        """Publish what an earlier owner committed and perhaps did not publish. Raises: TransportError, StateError.

        No connection is held while the log is waited for: the embedded log needs one of the same pool.
        """
        while True:
            async with self._lend() as connection:
                rows = await read_unmarked(connection, self._group, self._partition, self._through)
            if not rows:
                self._has_caught_up = True
                return
            for sequence, records in rows:
                await self._publish_all(records)
                self._through = sequence
                for topic, count in Counter([record.topic for record in records]).items():
                    labels = {"subscription": self._subscription, "topic": topic}
                    self._metrics.emits_republished_total.labels(**labels).inc(count)

    async def _publish_all(self, records: Sequence[NewRecord]) -> None:
        """Publish the records, in several calls if they are large. Raises: as `_publish`."""
        for part in _parts(records):
            await self._publish(part)

    async def _publish(self, records: Sequence[NewRecord]) -> None:
        """Publish the records; one that the log refuses is found by halving, and becomes a dead letter.

        Raises: TransportError (some may be in the log), StateError.
        """
        try:
            await self._log.publish(records)
        except RecordTooLargeError as error:
            if len(records) > 1:
                half = len(records) // 2
                await self._publish(records[:half])
                await self._publish(records[half:])
                return
            async with self._lend() as connection:
                await store_refused_emit(connection, self._group, self._partition, records[0], error)
            labels = {"subscription": self._subscription, "topic": records[0].topic}
            self._metrics.emits_refused_total.labels(**labels).inc()
            logger.error("the log refused an emitted event: dead letter", **labels, error=str(error))

    def push(self, sequence: int, records: Sequence[NewRecord], span: Span | None) -> None:
        """Publish the records of a committed ledger row, behind those pushed before; `span` is its batch's."""
        self._pending.append(Pending(sequence, records, span, time.monotonic()))
        self._idle.clear()
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"relay {self._subscription} {self._partition}")

    async def flush(self, timeout_seconds: float) -> bool:
        """Wait until nothing is pending. Returns False after the timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        return not self._pending

    async def stop(self) -> None:
        """Stop publishing; what is pending stays unmarked and is published by the next owner."""
        task = self.abandon()
        if task is not None:
            with suppress(asyncio.CancelledError):
                await task

    def abandon(self) -> asyncio.Task[None] | None:
        """Stop publishing without waiting for it; return what ends in a moment."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        return task

    async def _run(self) -> None:
        backoff = Backoff(0.1, 10.0)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                batch = list(self._pending)
                records = [record for pending in batch for record in pending.records]
                started_ns = time.time_ns()
                try:
                    await self._publish_all(records)
                except (Exception, asyncio.CancelledError) as error:  # the emits are committed and must leave
                    if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                        raise
                    logger.warning(
                        "emits wait",
                        subscription=self._subscription,
                        records=len(records),
                        error=str(error) if isinstance(error, HeadraceError) else type(error).__name__,
                    )
                    await asyncio.sleep(backoff.next_seconds())
                    continue
                backoff.reset()
                for topic, count in Counter([record.topic for record in records]).items():
                    self._metrics.emits_published_total.labels(subscription=self._subscription, topic=topic).inc(count)
                for pending in batch:
                    self._pending.popleft()
                    self._through = pending.sequence
                if self._tracing.enabled:
                    self._trace(batch, started_ns)
            self._idle.set()

    def _trace(self, batch: Sequence[Pending], started_ns: int) -> None:
        """Make spans of the first sampled emits."""
        ended_ns = time.time_ns()
        emits = ((pending.span, record) for pending in batch for record in pending.records)
        sampled = (each for each in emits if names_sampled(each[1].headers))
        for span, record in islice(sampled, MAX_CALLS):
            event, _ = decode_record(record)
            source = EventLink(event.traceparent, event.tracestate, event.causationid or "", -1, "applied")
            facts = EmitFacts(self._subscription, record.topic, source, event.id, started_ns, ended_ns)
            self._tracing.emitted(span, facts)


def _parts(records: Sequence[NewRecord]) -> Iterator[Sequence[NewRecord]]:
    """Yield the records in the parts that one publish takes, in order: nearly always all of them."""
    sizes = [len(record.value or b"") for record in records]
    begin = size = 0
    for place, each in enumerate(sizes if sum(sizes) > CALL_BYTES else ()):
        size += each
        if size > CALL_BYTES and place > begin:
            yield records[begin:place]
            begin, size = place, each
    yield records[begin:]
