"""Publishes the emits of one partition after their commit, in order, until the log has them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, NamedTuple, TypeAlias

import asyncpg
from opentelemetry.trace import Span

from headrace.emits.emitter import unpack
from headrace.errors import HeadraceError
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Log, NewRecord, TopicPartition
from headrace.telemetry.facts import EmitFacts, EventLink
from headrace.telemetry.logging import get_logger
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.tracing import Tracing

UNMARKED = """
select sequence, emits from headrace.ledger
where subscription = $1 and topic = $2 and partition = $3 and sequence > $4 and emits is not null
order by sequence limit 100
"""

logger = get_logger(__name__)

Lend: TypeAlias = "Callable[[], AbstractAsyncContextManager[asyncpg.Connection[Any]]]"
"""Lends a connection, as `EngineContext.connection` does."""


class Pending(NamedTuple):
    """The emits of one ledger row; `since` is a monotonic time, `span` the batch's where it is traced."""

    sequence: int
    records: Sequence[NewRecord]
    span: Span | None
    since: float


class Relay:
    """Takes (ledger sequence, records) after each commit; `through` is the sequence up to which all are in the log."""

    def __init__(
        self,
        log: Log,
        metrics: Metrics,
        tracing: Tracing,
        subscription: Subscription,
        source: TopicPartition,
        through: int,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._tracing = tracing
        self._subscription, self._group = subscription.name, subscription.group
        self._source = source
        self._through = through
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

    def through(self, sequence: int, *, emits: bool) -> int:
        """Return what a batch that becomes ledger row `sequence` may write into the claim's `emitted_through`."""
        if self._pending:
            return self._pending[0].sequence - 1
        return sequence - 1 if emits else sequence

    async def publish_unmarked(self, lend: Lend) -> None:
        """Publish what an earlier owner committed and perhaps did not publish. Raises: TransportError, StateError.

        No connection is held while the log is waited for: the embedded log needs one of the same pool.
        """
        while True:
            async with lend() as connection:
                rows = await connection.fetch(UNMARKED, self._group, *self._source, self._through)
            if not rows:
                return
            for row in rows:
                records = unpack(row["emits"])
                await self._log.publish(records)
                self._through = row["sequence"]
                for topic, count in Counter([record.topic for record in records]).items():
                    labels = {"subscription": self._subscription, "topic": topic}
                    self._metrics.emits_republished_total.labels(**labels).inc(count)

    def push(self, sequence: int, records: Sequence[NewRecord], span: Span | None) -> None:
        """Publish the records of a committed ledger row, behind those pushed before; `span` is its batch's."""
        self._pending.append(Pending(sequence, records, span, time.monotonic()))
        self._idle.clear()
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"relay {self._subscription} {self._source}")

    async def flush(self, timeout_seconds: float) -> bool:
        """Wait until nothing is pending. Returns False after the timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        return not self._pending

    async def stop(self) -> None:
        """Stop publishing; what is pending stays unmarked and is published by the next owner."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        delay = 0.1
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                batch = list(self._pending)
                records = [record for pending in batch for record in pending.records]
                started_ns = time.time_ns()
                try:
                    await self._log.publish(records)
                except Exception as error:  # whatever it is, the emits are committed and must leave
                    logger.warning(
                        "emits wait",
                        subscription=self._subscription,
                        records=len(records),
                        error=str(error) if isinstance(error, HeadraceError) else type(error).__name__,
                    )
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, 10.0)
                    continue
                delay = 0.1
                for topic, count in Counter([record.topic for record in records]).items():
                    self._metrics.emits_published_total.labels(subscription=self._subscription, topic=topic).inc(count)
                if self._tracing.enabled:
                    self._trace(batch, started_ns)
                for pending in batch:
                    self._pending.popleft()
                    self._through = pending.sequence
            self._idle.set()

    def _trace(self, batch: Sequence[Pending], started_ns: int) -> None:
        ended_ns = time.time_ns()
        for pending in batch:
            for record in pending.records:
                headers = dict(record.headers)
                if "ce_traceparent" not in headers:
                    continue
                text = {name: value.decode() for name, value in headers.items() if name.startswith("ce_")}
                cause_id, state = text["ce_causationid"], text.get("ce_tracestate")
                source = EventLink(text["ce_traceparent"], state, cause_id, -1, "applied")
                facts = EmitFacts(self._subscription, record.topic, source, text["ce_id"], started_ns, ended_ns)
                self._tracing.emitted(pending.span, facts)
