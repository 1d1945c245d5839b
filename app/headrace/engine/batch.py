"""Applies records of one partition: read, run, commit, and the answer to each way in which that can fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import asyncpg
from opentelemetry.trace import Span

from headrace.emits.emitter import Emitter
from headrace.emits.relay import Relay
from headrace.engine.claim import Claim, Fingerprint
from headrace.engine.collect import changed_states, collect_batch, collect_retry
from headrace.engine.commit import BATCH, RETRY, Effects, count_attempts, write_effects
from headrace.engine.context import EngineContext
from headrace.engine.lanes import HEADS, records_of
from headrace.engine.memory import PartitionMemory
from headrace.engine.read import RecordReader
from headrace.engine.report import Reporter
from headrace.engine.run import HandlerFailedError, Run, keys_by_state
from headrace.engine.trace import trace_fenced
from headrace.errors import ConflictError, DataRefusedError, FencedError, HandlerError, StateUnavailableError
from headrace.handlers.subscription import Subscription
from headrace.item import PARKED, Item, Outcome
from headrace.log.ports import Record
from headrace.log.stored import plain
from headrace.state.store import load

T = TypeVar("T")
Fate = tuple[Outcome, BaseException]
"""What becomes of an event that is not run, and why."""

INLINE_RECORDS = 64
"""A smaller batch is decoded and encoded on the event loop: a hop to a thread costs more."""

LANE_EVENTS = 100
"""The most events of one lane in one run."""

FIRST_RECORDS, TARGET_SECONDS = 1_000, 2.0
"""A batch begins small, doubles, and ends after two seconds: locks are short, and a stop waits for one batch."""

PATIENCE = 3
"""Failures in a row that Postgres, which answers, blames on itself: then the handlers' own SQL is at fault."""


class Source:
    """One topic of a worker: its claim, the relay of its emits, and the records in flight."""

    def __init__(self, claim: Claim, relay: Relay) -> None:
        self.claim = claim
        self.relay = relay


class BatchProcessor:
    """Applies batches of one partition number, one at a time."""

    def __init__(
        self,
        context: EngineContext,
        subscription: Subscription,
        partition: int,
        memory: PartitionMemory,
        reporter: Reporter,
    ) -> None:
        self._context = context
        self._subscription = subscription
        self._partition = partition
        self._memory = memory
        self._reporter = reporter
        self.reader = RecordReader(subscription, context.registry.types, context.registry.decoders)
        self._engine = context.settings.engine
        self._limit = min(FIRST_RECORDS, self._engine.batch_records)
        self.doomed: dict[tuple[str, int], Fate] = {}
        """Events by (topic, offset) that are not run again, with what becomes of them."""
        self._careful = False
        self._run: Run | None = None
        self._idle_limit_ms = round((self._engine.batch_seconds + TARGET_SECONDS + 5) * 1000)
        """Handlers may think within their transaction; a zombie holds its locks no longer than that."""
        self._wants_transaction = any(h.signature.wants_transaction for h in subscription.handlers.values())

    @property
    def running(self) -> Item | None:
        """The item whose handler runs now; None between runs."""
        return self._run.current if self._run is not None else None

    async def apply(self, source: Source, records: Sequence[Record]) -> None:
        """Apply the next records of the log, all of them, in one or more transactions.

        Raises: FencedError (nothing of the current batch happened), CancelledError.
        """
        claim, topic = source.claim, source.claim.source.topic
        doomed = {offset: fate for (of, offset), fate in self.doomed.items() if of == topic}
        if claim.is_guilty:
            doomed[records[0].offset] = (Outcome.PROCESS_KILLED, HandlerError(KILLED, ""))
        pending = records
        while pending:
            chunk = pending[: 1 if claim.is_suspect else self._limit]

            def build(chunk: Sequence[Record] = chunk) -> list[Item]:
                items = self.reader.read(chunk, self._memory.windows[topic].ids)
                if doomed:
                    _doom(items, doomed)
                return items

            started = time.perf_counter()
            try:
                count = await self._transact(source, BATCH, build, chunk[-1].offset + 1, Fingerprint.of(chunk[-1]))
            except DataRefusedError as error:
                self._reporter.rerun("handler", error)
                if len(chunk) == 1:
                    offset, cause = chunk[0].offset, error.__cause__ or error
                    # Refused once more: not even its lane can hold it.
                    doomed[offset] = (Outcome.GAVE_UP if offset in doomed else Outcome.DATA_REFUSED, cause)
                self._limit = max(1, len(chunk) // 2)
                continue
            pending = pending[count:]
            self._adapt(count, time.perf_counter() - started)

    def _adapt(self, records: int, seconds: float) -> None:
        """Take as many records as the handlers do in that time: more would be read in vain."""
        if seconds > TARGET_SECONDS:
            self._limit = max(1, int(records * TARGET_SECONDS / seconds))
        else:
            self._limit = min(self._limit * 2, self._engine.batch_records)

    async def skip_to(self, source: Source, offset: int) -> None:
        """Move the claim over offsets that hold no record (commit markers, aborted or compacted records)."""
        await self._transact(source, BATCH, list, offset, source.claim.last)

    async def retry(self, source: Source, keys: Sequence[str], events: int = LANE_EVENTS) -> None:
        """Run up to so many events of each key's lane, in order, until it is empty or its head fails again."""
        context, lanes = self._context, self._memory.lanes
        async with context.connection() as connection, connection.transaction(isolation="read_committed"):
            await count_attempts(connection, source.claim, keys)
        for key in keys:
            lanes.by_key[key].attempts += 1
        await self._run_lanes(source, keys, events)

    async def _run_lanes(self, source: Source, keys: Sequence[str], limit: int) -> None:
        """Run up to `limit` events of each lane; where Postgres refuses their data, fewer, until it is one event."""
        lanes = self._memory.lanes
        async with self._context.connection() as connection:
            rows = await connection.fetch(
                HEADS, self._subscription.group, self._partition, [key.encode() for key in keys], limit
            )
        worn_out = {key for key in keys if lanes.by_key[key].attempts > self._engine.retry_attempts}
        parked = records_of(rows, self._partition)
        refused: set[str] = set()

        def build() -> list[Item]:
            items = self.reader.read([record for _, _, record in parked], frozenset())
            heads: set[str] = set()
            for item, (key, number, _) in zip(items, parked, strict=True):
                item.number, item.key, item.attempt = number, key, lanes.by_key[key].attempts
                if item.outcome in (Outcome.DUPLICATE_ID, Outcome.UNHANDLED):
                    continue
                is_head = key not in heads
                heads.add(key)
                if key in worn_out or key in refused:
                    outcome = Outcome.HANDLER_ERROR if is_head else Outcome.BEHIND_KEY
                    item.failed(outcome, HandlerError(KILLED if key in worn_out else lanes.by_key[key].error, ""))
            return items

        self._careful = True
        try:
            await self._transact(source, RETRY, build, source.claim.next_offset, source.claim.last)
        except DataRefusedError as error:
            if len(parked) > 1:
                for key in keys:
                    await self._run_lanes(source, [key], limit if len(keys) > 1 else len(parked) // 2)
                return
            lanes.by_key[keys[0]].error = plain(str(error.__cause__ or error))
            refused.add(keys[0])
            await self._transact(source, RETRY, build, source.claim.next_offset, source.claim.last)

    async def _transact(
        self,
        source: Source,
        kind: int,
        build: Callable[[], list[Item]],
        next_offset: int,
        last: Fingerprint | None,
    ) -> int:
        """Do one batch until it, or as much of it as takes a second, is committed; return how many items that was.

        Raises: DataRefusedError, FencedError.
        """
        claim, delay, failures = source.claim, 0.05, 0
        started = time.time_ns()
        while True:
            sequence = claim.sequence + 1
            try:
                items = await self._off_loop(
                    build, large=kind == RETRY or next_offset - claim.next_offset > INLINE_RECORDS
                )
                effects = Effects(kind, items, next_offset, last)
                commit_ns = await self._attempt(source, effects, sequence)
            except HandlerFailedError as error:
                self._undo()
                self._careful = True
                self._reporter.rerun("handler", error, error.item)
                continue
            except ConflictError as error:
                self._undo()
                self._reporter.rerun("conflict", error)
                await asyncio.sleep(delay / 10)
                continue
            except StateUnavailableError as error:
                self._undo()
                self._reporter.rerun("infrastructure", error)
                if not await self._was_committed(source, sequence):
                    failures += 1
                    if self._wants_transaction and failures >= PATIENCE:
                        raise DataRefusedError(f"the transaction failed {failures} times: {error}") from error
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, 5.0)
                    continue
                commit_ns = time.time_ns()
            except BaseException as error:
                if isinstance(error, FencedError) and self._run is not None:
                    trace_fenced(self._context.tracing, claim, self._run.items, started, time.time_ns())
                self._undo()
                raise
            calls = self._run.calls if self._run is not None else []
            span = self._reporter.committed(claim, effects, calls, started, commit_ns)
            self._committed(source, effects, sequence, span)
            return len(effects.items)

    async def _attempt(self, source: Source, effects: Effects, sequence: int) -> int:
        context, items = self._context, effects.items
        await self._load_states(items)
        held = self._memory.lanes.by_key if effects.kind == BATCH else frozenset[str]()
        emitter = Emitter(
            context.registry.service,
            self._subscription.name,
            context.registry.types,
            context.settings.kafka.max_record_bytes,
        )
        run = self._run = Run(
            items,
            self._memory.caches,
            held,
            emitter,
            careful=self._careful,
            timeout_seconds=self._engine.batch_seconds,
            observe=self._reporter.handled,
            failed=self._reporter.failed,
            tracing=context.tracing,
            target_seconds=TARGET_SECONDS,
        )
        if self._wants_transaction:
            async with context.connection() as connection, connection.transaction(isolation="read_committed"):
                await connection.execute(f"set local idle_in_transaction_session_timeout = {self._idle_limit_ms}")
                await source.claim.guard(connection)
                await run.execute(context.executor, connection)
                await self._collect(effects, run)
                return await self._write(connection, source, effects, sequence)
        await run.execute(context.executor, None)
        await self._collect(effects, run)
        async with context.connection() as connection, connection.transaction(isolation="read_committed"):
            return await self._write(connection, source, effects, sequence)

    async def _write(self, connection: asyncpg.Connection[Any], source: Source, effects: Effects, sequence: int) -> int:
        effects.emitted_through = source.relay.through(sequence, emits=bool(effects.emits))
        await write_effects(connection, source.claim, effects, sequence, effects.emitted_through)
        return time.time_ns()

    async def _load_states(self, items: Sequence[Item]) -> None:
        keys = keys_by_state(items, Outcome.READY, self._memory.caches)
        missing = {name: cache.missing(keys[name]) for name, cache in self._memory.caches.items()}
        if any(missing.values()):
            async with self._context.connection() as connection:
                for name, wanted in missing.items():
                    if wanted:
                        await load(connection, self._subscription.group, self._memory.caches[name], wanted)

    async def _collect(self, effects: Effects, run: Run) -> None:
        """Turn what the run did into what is to be written. Raises: HandlerFailedError (a state cannot be written)."""
        try:
            effects.states = await self._off_loop(
                lambda: changed_states(self._memory.caches, run), large=len(effects.items) > INLINE_RECORDS
            )
        except Exception as error:
            if self._careful:
                raise
            raise HandlerFailedError from error  # with care it is found which event's handler made it so
        effects.emits = run.emitter.emitted
        if effects.kind == BATCH:
            collect_batch(effects, self._memory.lanes)
        else:
            collect_retry(effects, self._memory.lanes)
        effects.count()

    def _committed(self, source: Source, effects: Effects, sequence: int, span: Span | None) -> None:
        source.claim.advanced(effects.next_offset, sequence, effects.emitted_through, effects.last)
        if effects.emits:
            source.relay.push(sequence, [record for _, record in effects.emits], span)
        self._memory.take_in(source.claim.source.topic, effects)
        self._memory.forget(self._reporter.strays(effects))
        self._careful = any(item.outcome is Outcome.HANDLER_ERROR for item in effects.items)
        self._run = None

    def _undo(self) -> None:
        """Forget what the run did to states: Postgres knows what they were, or are."""
        run, self._run = self._run, None
        if run is not None:
            self._memory.forget({item.key for item in run.items if item.key is not None})

    async def _was_committed(self, source: Source, sequence: int) -> bool:
        """Ask the claim what became of a batch whose connection was lost; waits until Postgres answers."""
        delay = 0.1
        while True:
            try:
                async with self._context.connection() as connection, connection.transaction(isolation="read_committed"):
                    committed = await source.claim.was_committed(connection, sequence)
            except StateUnavailableError as error:
                self._reporter.waiting(error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
                continue
            self._reporter.resolved(committed)
            return committed

    async def _off_loop(self, function: Callable[[], T], *, large: bool) -> T:
        if not large:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self._context.executor, function)


def _doom(items: Sequence[Item], doomed: Mapping[int, Fate]) -> None:
    """Give the events, by offset, their fate; what follows a parked one of its key waits behind it."""
    parked: set[str | None] = set()
    for item in items:
        if item.outcome is not Outcome.READY:
            continue
        if item.record.offset in doomed:
            item.failed(*doomed[item.record.offset])
            if item.outcome in PARKED:
                parked.add(item.key)
        elif item.key in parked:
            item.outcome = Outcome.BEHIND_KEY


KILLED = (
    "the process died each time while this event was being handled (out of memory, or a crash in native code), "
    "or its handler did not return."
)
