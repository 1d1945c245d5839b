"""One attempt at one batch: decode, load, run, settle, write, remember. All of it is committed, or nothing happened.

What may go wrong with an attempt, and what is done about it, is in `transact.py`; what becomes of a failing event is
in `verdict.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from headrace.database.pool import Connection
from headrace.emits.emitter import Emitter
from headrace.emits.relay import Relay
from headrace.engine.breaker import Breaker
from headrace.engine.claim import Claim, Fingerprint
from headrace.engine.commit import write_effects
from headrace.engine.context import EngineContext
from headrace.engine.decode import BatchDecoder
from headrace.engine.effects import Effects
from headrace.engine.memory import PartitionMemory
from headrace.engine.report import Reporter
from headrace.engine.run import HandlerFailedError, Run, keys_by_state
from headrace.engine.settle import changed_states, settle
from headrace.engine.threads import HandlerThreads
from headrace.handlers.subscription import Subscription
from headrace.item import Item, Outcome
from headrace.ledger.rows import Kind
from headrace.log.ports import Record
from headrace.registry import Registry
from headrace.state.cache import StoredState
from headrace.state.store import read
from headrace.tables.writes import TableWriter

T = TypeVar("T")

INLINE_RECORDS, INLINE_BYTES = 64, 65_536
"""A smaller batch is decoded and encoded on the event loop: a hop to a thread costs more."""

IDLE_MARGIN_SECONDS = 5.0

FIRING_SECONDS = 0.05
"""A batch ends about when a timer is due, but takes this long at least."""


@dataclass
class Holding:
    """One held partition: its claim, the relay of its emits, and records that were fetched and not applied yet."""

    claim: Claim
    relay: Relay
    pending: Sequence[Record] = ()


@dataclass
class Batch:
    """Items to be applied in one transaction: `decode` makes them, again for each attempt."""

    kind: Kind
    holding: Holding
    records: int
    """How many it is about; `decode` returns an item for each."""
    bytes: int
    """How many the values have; 0 in a batch of more than INLINE_RECORDS."""
    decode: Callable[[], list[Item]]
    next_offset: int
    last: Fingerprint | None
    sequence: int = field(init=False)
    started_ns: int = field(default_factory=time.time_ns)
    committing_ns: int = 0
    """When its COMMIT was sent; 0 until then."""
    run: Run | None = None
    """What the latest attempt ran."""
    effects: Effects | None = None
    """What the latest attempt wrote."""

    def __post_init__(self) -> None:
        self.sequence = self.holding.claim.sequence + 1


class BatchProcessor:
    """Applies batches of one partition number, one at a time."""

    def __init__(
        self,
        context: EngineContext,
        subscription: Subscription,
        partition: int,
        memory: PartitionMemory,
        reporter: Reporter,
        threads: HandlerThreads,
        handler_seconds: float,
        breaker: Breaker,
    ) -> None:
        """`handler_seconds`: the longest that a call of any handler may take."""
        self.context = context
        self.subscription = subscription
        self.partition = partition
        self.memory = memory
        self.reporter = reporter
        self.breaker = breaker
        self.decoder = BatchDecoder(subscription, context.registry.types, context.registry.decoders)
        self.is_careful = False
        """True if the next attempt keeps what it needs to undo a single event."""
        self.failures = 0
        """Failures in a row of a kind that Postgres blames on itself."""
        self.running: Run | None = None
        """The run whose handlers are being called."""
        self._threads = threads
        self._engine = context.settings.engine
        self._idle_limit_ms = round((handler_seconds + context.pace.target + IDLE_MARGIN_SECONDS) * 1_000)
        self.wants_transaction = any(h.signature.wants_transaction for h in subscription.handlers.values())

    async def attempt(self, batch: Batch) -> Effects:
        """Apply the batch, or as much of it as its handlers do in the target time.

        Raises: HandlerFailedError (apply it again with care), OutageError, StateError, FencedError: nothing was
        committed, except that a StateUnavailableError may leave that unknown. `undo` must follow.
        """
        items = await self._decode(batch)
        await self._load_states(items)
        async with BatchTransaction(self.context) as transaction:
            if self.wants_transaction:
                await transaction.begin_guarded(batch.holding.claim, self._idle_limit_ms)
            run = await self._run(batch, items, transaction.connection)
            if self.is_careful and not self.memory.lanes.is_probing:
                self.breaker.judge(run.items, self.memory.lanes.policy_of, is_of_log=batch.kind is Kind.BATCH)
            effects = await self._settle(batch, run)
            await self.write(await transaction.begin(), batch, effects)
        self.remember(batch, effects)
        return effects

    def undo(self, batch: Batch) -> None:
        """Forget what the latest attempt did to states: Postgres knows what they were, or are."""
        self.running = None
        run, batch.run, batch.effects, batch.committing_ns = batch.run, None, None, 0
        if run is not None:
            self.memory.forget({item.key for item in run.items if item.key is not None})

    async def _decode(self, batch: Batch) -> list[Item]:
        return await self.off_loop(batch.decode, large=is_large(batch.records, batch.bytes))

    async def _load_states(self, items: Sequence[Item]) -> None:
        keys = keys_by_state(items, Outcome.READY, self.memory.caches)
        missing = {name: cache.missing(keys[name]) for name, cache in self.memory.caches.items()}
        if not any(missing.values()):
            return
        rows: dict[str, list[StoredState]] = {}
        async with self.context.connection() as connection:
            for name, wanted in missing.items():
                if wanted:
                    rows[name] = await read(connection, self.subscription.group, name, wanted)
        for name, stored in rows.items():
            fill = partial(self.memory.caches[name].fill, stored)
            await self.off_loop(fill, large=is_large(len(stored), sum([len(row.raw) for row in stored])))

    async def _run(self, batch: Batch, items: Sequence[Item], connection: Connection | None) -> Run:
        context = self.context
        emitter = emitter_of(context.registry, self.subscription, context.settings.kafka.max_record_bytes)
        run = batch.run = self.running = Run(
            items,
            self.memory.caches,
            self.memory.lanes.by_key if batch.kind is Kind.BATCH else frozenset(),
            emitter,
            careful=self.is_careful,
            timeout_seconds=self._engine.handler_seconds,
            observe=self.reporter.handled,
            failed=self.reporter.failed,
            tracing=context.tracing,
            target_seconds=min(context.pace.target, max(FIRING_SECONDS, self.memory.timers.seconds)),
        )
        await run.execute(self._threads, connection)
        self.running = None
        return run

    async def _settle(self, batch: Batch, run: Run) -> Effects:
        emitter = run.emitter
        effects = Effects(
            batch.kind, run.items, batch.next_offset, batch.last, emits=emitter.emitted, timers=emitter.timers
        )
        effects.rows = emitter.table
        try:
            known = sum([len(entry.raw) for entry in run.entries()]) if len(run.items) <= INLINE_RECORDS else 0
            effects.states = await self.off_loop(
                lambda: changed_states(self.memory.caches, run), large=is_large(len(run.items), batch.bytes + known)
            )
        except Exception as error:
            if self.is_careful:
                raise
            raise HandlerFailedError from error  # with care it is found which event's handler made it so
        settle(effects, self.memory.lanes)
        if self.subscription.effects:
            effects.started = self.memory.calls.of(effects.items, self.subscription.effects)
        return effects

    async def write(self, connection: Connection, batch: Batch, effects: Effects) -> None:
        """Write the effects; what follows is the COMMIT."""
        relay = batch.holding.relay
        effects.emitted_through = relay.can_mark_through(batch.sequence, emits=bool(effects.emits))
        await write_effects(connection, batch.holding.claim, effects, batch.sequence)
        batch.effects, batch.committing_ns = effects, time.time_ns()

    def remember(self, batch: Batch, effects: Effects) -> None:
        """Follow what was committed."""
        claim, relay = batch.holding.claim, batch.holding.relay
        effects.strays = self.reporter.strays(effects)
        calls = batch.run.calls if batch.run is not None else ()
        span = self.reporter.committed(claim, effects, calls, batch.started_ns, batch.committing_ns)
        claim.advanced(effects.next_offset, batch.sequence, effects.emitted_through, effects.last)
        if effects.emits:
            relay.push(batch.sequence, [record for _, record in effects.emits], span)
        if batch.run is not None and batch.run.outbox_slots:
            self.context.wake_outbox(batch.run.outbox_slots)
        self.memory.follow(claim.partition.topic, effects)
        if self.memory.lanes.is_probing:
            self.breaker.probed(effects.items)
        self.is_careful = any(item.outcome is Outcome.HANDLER_ERROR for item in effects.items)

    async def off_loop(self, function: Callable[[], T], *, large: bool) -> T:
        """Return what the function returns; a large piece of work runs in a thread."""
        if not large:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self.context.executor, function)


def emitter_of(registry: Registry, subscription: Subscription, max_bytes: int) -> Emitter:
    """Return what the handlers of one batch emit with; those of a projection write rows with it instead."""
    table = subscription.table
    types = registry.types if table is None else {}
    emitter = Emitter(registry.service, subscription.name, types, max_bytes)
    if table is not None:
        emitter.table = TableWriter(table, lambda: emitter.cause)
    return emitter


def is_large(records: int, size_bytes: int) -> bool:
    """Tell whether so much is decoded and encoded in a thread."""
    return records > INLINE_RECORDS or size_bytes > INLINE_BYTES


class BatchTransaction:
    """A transaction that begins when it is first asked for: before the handlers only if one of them uses it."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._stack = AsyncExitStack()
        self.connection: Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Commit, or roll back if there was an error."""
        await self._stack.__aexit__(kind, error, traceback)

    async def begin(self) -> Connection:
        """Return the connection, inside the transaction. Raises: StateError."""
        if self.connection is None:
            self.connection = await self._stack.enter_async_context(self._context.transaction())
        return self.connection

    async def begin_guarded(self, claim: Claim, idle_limit_ms: int) -> None:
        """Begin with the claim locked: handlers' own SQL never runs for two owners at once. Raises: FencedError.

        Handlers may take time within the transaction; a frozen process holds its locks for `idle_limit_ms` at most.
        """
        connection = await self.begin()
        await connection.execute(f"set local idle_in_transaction_session_timeout = {idle_limit_ms}")
        await claim.guard(connection)
