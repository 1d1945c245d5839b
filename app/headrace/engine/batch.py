"""One attempt at one batch: decode, load, run, settle, write, remember. All of it is committed, or nothing happened.

What may go wrong with an attempt, and what is done about it, is in `transact.py`; what becomes of a failing event is
in `verdict.py`.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, cast

from headrace.database.pool import Connection
from headrace.database.session import Session
from headrace.emits.emitter import Emitter
from headrace.emits.relay import Relay
from headrace.engine.breaker import Breaker
from headrace.engine.claim import Claim, Fingerprint
from headrace.engine.commit import ledger_row, write_effects
from headrace.engine.context import EngineContext
from headrace.engine.decode import BatchDecoder, decoded
from headrace.engine.effects import Effects, StateRow
from headrace.engine.failures import HandlerFailedError, OverdueError
from headrace.engine.group_commit import is_small
from headrace.engine.list_sizes import ListSizes
from headrace.engine.memory import PartitionMemory, keys_by_state
from headrace.engine.patience import Patience
from headrace.engine.report import Reporter
from headrace.engine.run import Run
from headrace.engine.settle import changed_states, settle
from headrace.engine.threads import HandlerThreads
from headrace.errors import StateError
from headrace.handlers.subscription import Subscription
from headrace.item import Item, Outcome
from headrace.ledger.rows import Kind
from headrace.log.ports import Record
from headrace.registry import Registry
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
    next_offset: int = -1
    """Where the claim is afterwards; unless records of the log are applied, it is where the turn finds it."""
    last: Fingerprint | None = None
    is_probe: bool = False
    """True for a single event that is run to see whether an outage is over: whatever it raises is of the outage."""
    sequence: int = -1
    """That of its ledger row: known when it has the turn."""
    started_ns: int = field(default_factory=time.time_ns)
    committing_ns: int = 0
    """When its COMMIT was sent; 0 until then."""
    run: Run | None = None
    """What the latest attempt ran."""
    effects: Effects | None = None
    """What the latest attempt wrote."""

    def is_committing(self, effects: Effects) -> None:
        """Note that what follows commits the effects."""
        self.effects, self.committing_ns = effects, time.time_ns()


class BatchProcessor:
    """Applies batches of one partition number, one at a time; another one, made by `beside`, applies lanes meanwhile.

    They write one at a time: each takes the `turn` before it settles what its run has done, and gives it back when it
    knows what became of its transaction.
    """

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
        self.caches = memory.caches
        self._keeping = {name: state.keeping for name, state in subscription.states.items()}
        self.patience: Patience | None = Patience(context.pace.patience)
        self.lists = ListSizes()
        self.is_beside = False
        """True if it runs lanes, with states of its own."""
        self._turn, self._has_turn = asyncio.Lock(), False
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

    def beside(self, *, is_patient: bool) -> BatchProcessor:
        """Return one that runs lanes beside this one's batches; an `is_patient` one gives each call its whole limit.

        Any other waits for no call that takes long, however many do: its key runs alone next, in a patient one.
        It reads the states of its keys anew: a key that has a lane is the lane's alone, and so are its states.
        """
        other = copy.copy(self)
        other.caches = self.memory.new_caches()
        other.is_beside = other.is_careful = True
        other.lists = ListSizes(1)
        other.failures, other.running, other._has_turn = 0, None, False
        other.patience = None if is_patient else Patience(self.context.pace.patience)
        return other

    async def attempt(self, batch: Batch) -> Effects:
        """Apply the batch, or as much of it as its handlers do in the target time.

        Raises: HandlerFailedError (apply it again with care), OverdueError (apply it without that event), OutageError,
        StateError, SchemaRegistryError, FencedError: nothing was committed, except that a StateUnavailableError may
        leave that unknown. `undo` must follow, and `end_turn`.
        """
        items = await self._decode(batch)
        if batch.kind is Kind.BATCH:
            self.memory.lanes.hold_back(items)
        await self._load_states(items)
        async with BatchTransaction(self.context) as transaction:
            if self.wants_transaction:
                await self._begin_for_handlers(batch, transaction)
            run = await self._run(batch, items, transaction.connection)
            if self.is_careful and not batch.is_probe:
                self.breaker.judge(run.items, self.memory.lanes.policy_of, is_of_log=batch.kind is Kind.BATCH)
            states = await self._changed_states(batch, run)
            await self.take_turn(batch)
            effects = self._settle(batch, run, states)
            await self._commit(batch, effects, transaction)
        self.remember(batch, effects)
        return effects

    async def take_turn(self, batch: Batch) -> None:
        """Wait until nothing else of the partition writes, and take the batch's place behind what was written."""
        await self.begin_turn()
        claim = batch.holding.claim
        batch.sequence = claim.sequence + 1
        if batch.kind is not Kind.BATCH:
            batch.next_offset, batch.last = claim.next_offset, claim.last

    async def begin_turn(self) -> None:
        """Wait until nothing else of the partition writes, until `end_turn`."""
        if not self._has_turn:
            await self._turn.acquire()
            self._has_turn = True

    def end_turn(self) -> None:
        """Let the next one write, if this one had the turn."""
        if self._has_turn:
            self._has_turn = False
            self._turn.release()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Have the turn for a statement that compares the claim."""
        await self.begin_turn()
        try:
            yield
        finally:
            self.end_turn()

    def undo(self, batch: Batch) -> None:
        """Forget what the latest attempt did to states: Postgres knows what they were, or are."""
        self.running = None
        run, batch.run, batch.effects, batch.committing_ns = batch.run, None, None, 0
        if run is not None:
            keys = {item.key for item in run.items if item.key is not None}
            for cache in self.caches.values():
                cache.forget(keys)

    async def _decode(self, batch: Batch) -> list[Item]:
        large = is_large(batch.records, batch.bytes)
        return await decoded(lambda: self.off_loop(batch.decode, large=large))

    async def _begin_for_handlers(self, batch: Batch, transaction: BatchTransaction) -> None:
        """Begin before the handlers. A batch has the turn and the claim meanwhile, a lane has neither: it may hang."""
        if self.is_beside:
            await transaction.enter(self.context.lane_transactions)
            await batch.holding.claim.check(await transaction.begin_silent(self._idle_limit_ms))
        else:
            await self.take_turn(batch)
            await batch.holding.claim.guard(await transaction.begin_silent(self._idle_limit_ms))

    async def _load_states(self, items: Sequence[Item]) -> None:
        keys = keys_by_state(items, Outcome.READY, self.caches)
        missing = {name: cache.missing(keys[name]) for name, cache in self.caches.items()}
        if not any(missing.values()):
            return
        for name, wanted in missing.items():
            if not wanted:
                continue
            stored = await self.context.group_read.read(self.subscription.group, name, wanted)
            fill = partial(self.caches[name].fill, stored)
            await self.off_loop(fill, large=is_large(len(stored), sum([len(row.raw) for row in stored])))

    async def _run(self, batch: Batch, items: Sequence[Item], connection: Connection | None) -> Run:
        emitter = emitter_of(self.context.registry, self.subscription, self.context.settings.kafka.max_record_bytes)
        run = batch.run = self.running = Run(
            items,
            self.caches,
            emitter,
            careful=self.is_careful,
            timeout_seconds=self._engine.handler_seconds,
            patience=self.patience if self._threads.has_room else None,
            is_beside=self.is_beside,
            is_alone=self.patience is None,
            lists=self.lists,
            observe=self.reporter.handled,
            failed=self.reporter.failed,
            tracing=self.context.tracing,
            target_seconds=min(self.context.pace.target, max(FIRING_SECONDS, self.memory.timers.seconds)),
        )
        await run.execute(self._threads, connection)
        self.running = None
        return run

    async def _changed_states(self, batch: Batch, run: Run) -> dict[str, list[StateRow]]:
        try:
            known = sum([len(entry.raw) for entry in run.entries()]) if len(run.items) <= INLINE_RECORDS else 0
            return await self.off_loop(
                lambda: changed_states(self.caches, run), large=is_large(len(run.items), batch.bytes + known)
            )
        except Exception as error:
            if self.is_careful:
                raise
            raise HandlerFailedError from error  # with care it is found which event's handler made it so

    def _settle(self, batch: Batch, run: Run, states: dict[str, list[StateRow]]) -> Effects:
        emitter = run.emitter
        effects = Effects(
            batch.kind, run.items, batch.next_offset, batch.last, emits=emitter.emitted, timers=emitter.timers
        )
        effects.rows, effects.counted = emitter.table, emitter.counted
        effects.states, effects.keeping = states, self._keeping
        settle(effects, self.memory.lanes, is_probe=batch.is_probe)
        if self.subscription.effects:
            effects.started = self.memory.calls.of(self.memory.calling(effects.items), self.subscription.effects)
        return effects

    async def _commit(self, batch: Batch, effects: Effects, transaction: BatchTransaction) -> None:
        """Write the effects: a small batch with others, any other in the transaction, whose end is the COMMIT."""
        if transaction.connection is not None or not await self._commit_with_others(batch, effects):
            await self.write(await transaction.begin(), batch, effects)

    async def _commit_with_others(self, batch: Batch, effects: Effects) -> bool:
        """Commit a small batch without a transaction of its own. Returns False if it needs one.

        Raises: StateUnavailableError (it is not known whether the batch is committed).
        """
        if is_large(batch.records, batch.bytes) or not is_small(effects):
            return False
        claim = batch.holding.claim
        _mark(batch, effects)
        row = ledger_row(batch.sequence, claim.epoch, claim.next_offset, effects)
        batch.is_committing(effects)
        is_committed = await self.context.group_commit.commit(claim, effects, row)
        if not is_committed:
            batch.effects, batch.committing_ns = None, 0
        return is_committed

    async def write(self, connection: Connection, batch: Batch, effects: Effects) -> None:
        """Write the effects; what follows is the COMMIT."""
        _mark(batch, effects)
        await write_effects(connection, batch.holding.claim, effects, batch.sequence)
        batch.is_committing(effects)

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
        self.memory.follow(claim.partition.topic, effects, self.caches)
        if batch.is_probe:
            self.breaker.probed(effects.items)
        if not self.is_beside:
            self.is_careful = any(outcome is Outcome.HANDLER_ERROR for outcome, _ in effects.tally)

    async def off_loop(self, function: Callable[[], T], *, large: bool) -> T:
        """Return what the function returns; a large piece of work runs in a thread."""
        if not large:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self.context.executor, function)


def _mark(batch: Batch, effects: Effects) -> None:
    """Note up to which batch the claim may say that emits are in the log."""
    effects.emitted_through = batch.holding.relay.can_mark_through(batch.sequence, emits=bool(effects.emits))


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
        try:
            await self._stack.__aexit__(kind, error, traceback)
        except StateError:
            if not isinstance(error, OverdueError | asyncio.CancelledError):
                raise  # else it is the connection that was ended for a handler that does not return

    async def begin(self) -> Connection:
        """Return the connection, inside the transaction. Raises: StateError."""
        if self.connection is None:
            self.connection = await self._stack.enter_async_context(self._context.transaction())
        return self.connection

    async def begin_silent(self, idle_limit_ms: int) -> Connection:
        """Begin, for handlers that may take time within the transaction; return the connection.

        A frozen process holds its locks for `idle_limit_ms` at most.
        """
        connection = await self.begin()
        cast("Session", connection).hand_over()
        await connection.execute(f"set local idle_in_transaction_session_timeout = {idle_limit_ms}")
        return connection

    async def enter(self, places: asyncio.Semaphore) -> None:
        """Take one of the places until the transaction has ended."""
        await self._stack.enter_async_context(places)
