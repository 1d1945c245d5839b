"""Runs the handlers of a batch over its items, in order per key.

The first run is quick: handlers change the states in place, and nothing is kept to undo one event alone. If a handler
raises, everything is undone and the batch runs again with care: each event's states are copied before its handler runs
(and a savepoint is set if it has a Transaction), so that a failing event is taken out alone, and the later events of
its key wait behind it. Synchronous handlers run in a thread, one hop for a whole run of them.

A run ends early when its handlers take long: the next run takes what is left. So slow handlers hold no lock for long,
and the thread of an abandoned run ends with the handler that it is in.

`_run_sync` and `_run_async` are the same loop twice: a shared one would cost a call per event.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeAlias

from headrace.database.pool import Connection
from headrace.emits.emitter import Emitter
from headrace.engine.attend import attend
from headrace.engine.failures import HandlerFailedError, OverdueError, failure_of
from headrace.engine.invoke import await_handler, call_handler, emit_returned, savepoint
from headrace.engine.list_sizes import ListSizes
from headrace.engine.lists import ListCalls
from headrace.engine.memory import keys_by_state
from headrace.engine.order import RunOrder
from headrace.engine.patience import Patience, Wait
from headrace.engine.threads import HandlerThreads
from headrace.engine.trace import Called
from headrace.errors import HandlerError
from headrace.handlers.inject import Transaction
from headrace.handlers.subscription import Handler, Way
from headrace.handlers.verdicts import HandlerVerdict, Skip
from headrace.item import Item, Outcome
from headrace.order.state import ORDER_STATE
from headrace.state.cache import Entry, StateCache
from headrace.stopping import ends_the_task
from headrace.telemetry.failures import text_of
from headrace.telemetry.tracing import SLOW_CALL_SECONDS, Tracing

Observe = Callable[[Handler, float], None]
"""(handler, seconds of one call): called for a sample of the calls."""

Failed = Callable[[Item, BaseException], None]
"""(item, what its handler raised, with the traceback): called for each failure of a careful run, in its thread."""

Saved: TypeAlias = list[tuple[Entry, Any]]
"""States as they were before a handler ran."""

SAMPLE = 16
"""Every 16th call is timed: two clock readings cost as much as a small handler."""


class Run:
    """One run over the items of a batch. What it emits is in `emitter.emitted`."""

    def __init__(
        self,
        items: Sequence[Item],
        caches: dict[str, StateCache],
        emitter: Emitter,
        *,
        careful: bool,
        timeout_seconds: float,
        observe: Observe,
        failed: Failed,
        tracing: Tracing,
        target_seconds: float = math.inf,
        patience: Patience | None = None,
        is_beside: bool = False,
        is_alone: bool = False,
        lists: ListSizes | None = None,
    ) -> None:
        """`patience`: how long a call is waited for that may take longer; None if each has its whole time limit.

        `lists`: how many events batch handlers are given at a time.
        """
        self.items = items
        self.emitter = emitter
        self._caches = caches
        self._entries_of: dict[Handler, list[dict[str, Entry]]] = {}
        self.failed_keys: set[str] = set()
        self.is_careful = careful
        self._timeout = timeout_seconds
        self._patience = patience
        self.is_beside = is_beside
        """True if it runs lanes beside the batches."""
        self._is_alone = is_alone
        self._target = target_seconds
        self.lists = lists if lists is not None else ListSizes()
        self._listed, self._events_listed = 1, 0
        """How many items the handler that runs was called for, and how many batch handlers were in all."""
        self._ends_at: float | None = None
        self.is_ending = self._is_abandoned = False
        self._connection: Connection | None = None
        self.current: Item | None = None
        """The item whose handler runs; None before and after."""
        self.began = 0.0
        """When its handler was called, as `time.perf_counter()` tells."""
        self.waits_for_thread = False
        """True until a thread takes its handlers up: those of other partitions may have all threads."""
        self.outbox_slots: set[int] = set()
        """Slots of the outbox that handlers have written to in the transaction."""
        self.written: dict[tuple[str, str], bytes] = {}
        """JSON by (state, key), of a careful run: nothing that happens later can spoil what could be written."""
        self._observe = observe
        self._report_failed = failed
        self.tracing = tracing
        self.calls: list[Called] = []
        """Handler calls that may get a span."""
        self._order = RunOrder(caches, self.written)

    async def execute(self, threads: HandlerThreads, connection: Connection | None) -> None:
        """Run READY items for about `target_seconds`, in order and one at least.

        Each that it came to is APPLIED, HANDLER_ERROR or BEHIND_KEY afterwards; the others are READY still.

        The handlers run in a thread or a task of their own, which is left behind if one of them does not return.
        Raises: HandlerFailedError (quick run only); OverdueError; StateUnavailableError when Postgres failed under a
        handler.
        """
        self._connection = connection
        ready = self._refuse_unreadable([item for item in self.items if item.outcome is Outcome.READY])
        ways = set[Way]()
        for handler in {item.handler for item in ready}:
            assert handler is not None
            handler.follow()
            self._entries_of[handler] = [self._caches[name].entries for name in handler.state_names]
            ways.add(handler.way)
        parts = ((way, list(part)) for way, part in groupby(ready, key=_way))
        for way, part in parts if len(ways) > 1 else [(way, ready) for way in ways]:
            await self._work(way, part, threads, connection)
            self.current, self._listed = None, 1  # what waits for a thread is not the last handler's fault
        if self._patience is not None:
            self._patience.called(sum([item.outcome is not Outcome.READY for item in ready]))
        self.emitter.cause = None

    async def _work(
        self, way: Way, items: Sequence[Item], threads: HandlerThreads, connection: Connection | None
    ) -> None:
        """Call the handlers of items that follow each other and are called in the same way."""
        lists = ListCalls(self, way, items) if isinstance(way, Handler) else None
        if way.is_async if isinstance(way, Handler) else way:
            calls = self._run_async(items, connection) if lists is None else lists.await_calls(connection)
            await attend(self, asyncio.create_task(calls, name="handlers"))
            return
        call = partial(self._in_thread, partial(self._run_sync, items) if lists is None else lists.call)
        self.waits_for_thread = True
        await threads.run(call, partial(attend, self), is_beside=self.is_beside, is_alone=self._is_alone)

    def _in_thread(self, call: Callable[[], None]) -> None:
        """Call the handlers; the last one is not to blame for the time until the event loop hears that it returned."""
        self.waits_for_thread = False
        try:
            call()
        finally:
            self.current = None

    @property
    def handlers(self) -> Collection[Handler]:
        """Those that are called."""
        return self._entries_of.keys()

    def limit(self, handler: Handler) -> Wait:
        """Return how long a call is waited for, and whether its own time limit is longer."""
        seconds = handler.timeout_seconds if handler.timeout_seconds is not None else self._timeout
        return self._patience.wait(seconds) if self._patience is not None else Wait(seconds, False)

    def begin_call(self, item: Item, now: float, items: int) -> None:
        """A batch handler is called for so many items, of which this is the first."""
        self.current, self.began, self._listed = item, now, items
        self._events_listed += items
        self.emitter.position = 0

    def overdue(self, item: Item, seconds: float) -> OverdueError | HandlerFailedError:
        """Return the error for a call that is given up on after so many seconds; for a list, its events run alone."""
        assert item.handler is not None
        is_cut = self.limit(item.handler).is_cut
        if is_cut and self._patience is not None:
            self._patience.given_up()
        if self._listed > 1:
            self.lists.overdue(item.handler, self._events_listed)
            return HandlerFailedError(item)
        return OverdueError(item, seconds, is_cut=is_cut)

    def abandon(self) -> None:
        """Run no handler after the one that runs; what that one does counts for nothing."""
        self.is_ending = self._is_abandoned = True

    def end_transaction(self) -> None:
        """End the transaction under a handler that does not return, if there is one."""
        if self._connection is not None:
            self._connection.terminate()

    def end_early(self) -> None:
        """Run no handler after the one that runs; what is done is kept."""
        self.is_ending = True

    def entries(self) -> Iterator[Entry]:
        """Return the states that a handler was given."""
        return (self._caches[name].entries[key] for name, keys in self.touched().items() for key in keys)

    def touched(self) -> dict[str, set[str]]:
        """Return the keys whose state a handler was given, by state."""
        keys = keys_by_state(self.items, Outcome.APPLIED, self._caches)
        if self._order.moved:
            keys[ORDER_STATE] |= self._order.moved
        return keys

    def _run_sync(self, items: Sequence[Item]) -> None:
        emitter, failed, entries_of = self.emitter, self.failed_keys, self._entries_of
        clock, calls, is_traced = time.perf_counter, 0, self.tracing.enabled
        applied = Outcome.APPLIED  # to ask an Enum for its member costs as much as a dictionary
        now = clock()
        ends_at, limit = self.end(now)
        for item in items:
            if now > ends_at or self.is_ending:
                return
            ends_at = limit
            handler, key = item.handler, item.key
            assert handler is not None and key is not None
            if failed and key in failed:
                item.outcome = Outcome.BEHIND_KEY
                continue
            if handler.is_wrapped and item.blamed is not None:
                self._order.refuse(item, failed)
                continue
            caches = entries_of[handler]
            # One state is the rule, and a comprehension costs more than all the rest of this loop.
            states = (caches[0][key].value,) if len(caches) == 1 else [entries[key].value for entries in caches]
            emitter.cause, emitter.position = item, 0
            self.current, self.began = item, now
            calls += 1
            saved = None
            try:
                if self.is_careful:
                    saved = self.save(handler, key)
                if handler.is_wrapped:
                    if handler.order is not None and not self._order.admits(item, failed):
                        now = clock()
                        continue
                    call_handler(item, handler, states, emitter)
                else:
                    returned = handler.call(item.event, item, states, emitter, None, ())
                    if returned is not None:
                        emit_returned(emitter, returned)
                if self.is_careful:
                    self.write(handler, key, states)
            except BaseException as error:  # nobody cancels a thread: whatever comes out is the handler's
                self.fail(item, handler, error, saved, now)
                now = clock()
                continue
            item.outcome = applied
            now, began = clock(), now
            if calls % SAMPLE == 1:
                self._observe(handler, now - began)
            if is_traced and (item.is_sampled or now - began > SLOW_CALL_SECONDS):
                self.calls.append(Called(item, handler, now - began, time.time_ns()))

    def end(self, now: float) -> tuple[float, float]:
        """Return after which time the next item, and those behind it, are not run.

        The time begins with the run's first item, however long that waited for a thread; the first is always run.
        """
        if self._ends_at is not None:
            return self._ends_at, self._ends_at
        self._ends_at = now + self._target
        return math.inf, self._ends_at

    async def _run_async(self, items: Sequence[Item], connection: Connection | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        ends_at, limit = self.end(time.perf_counter())
        for item in items:
            now = time.perf_counter()
            if now > ends_at or self.is_ending:
                return
            ends_at = limit
            handler, key = item.handler, item.key
            assert handler is not None and key is not None
            if key in self.failed_keys:
                item.outcome = Outcome.BEHIND_KEY
                continue
            if item.blamed is not None:
                self._order.refuse(item, self.failed_keys)
                continue
            states = [entries[key].value for entries in self._entries_of[handler]]
            self.emitter.cause, self.emitter.position = item, 0
            self.current, self.began = item, now
            transaction = Transaction(connection, item.envelope, self.outbox_slots) if connection else None
            started, saved = time.perf_counter(), None
            seconds, is_cut = self.limit(handler)
            time_limit = asyncio.timeout(seconds)
            try:
                if self.is_careful:
                    saved = self.save(handler, key)
                if handler.order is not None and not self._order.admits(item, self.failed_keys):
                    continue
                async with savepoint(connection if self.is_careful and handler.signature.wants_transaction else None):
                    await await_handler(item, handler, states, transaction, self.emitter, time_limit)
                if self.is_careful:
                    self.write(handler, key, states)
                self.check_wanted(task)
            except BaseException as error:
                if ends_the_task(error, task):
                    raise
                self.check_wanted(task, error)
                if time_limit.expired() and (is_cut or not self.is_careful):
                    raise self.overdue(item, time.perf_counter() - self.began) from error
                if transaction is not None and transaction.unavailable is not None:
                    raise transaction.unavailable from error
                self.fail(item, handler, error, saved, started)
                continue
            item.outcome = Outcome.APPLIED
            self.called(item, handler, time.perf_counter() - started)

    def check_wanted(self, task: asyncio.Task[Any], error: BaseException | None = None) -> None:
        """Raise CancelledError if the run was given up on, whatever the handler made of that."""
        if task.cancelling() or self._is_abandoned:
            raise asyncio.CancelledError from error

    def entries_of(self, handler: Handler) -> list[dict[str, Entry]]:
        """Return the entries of the states that a handler takes."""
        return self._entries_of[handler]

    def save(self, handler: Handler, key: str) -> Saved:
        """Return the states' entries with copies: a run that is given up on must not reach what is loaded anew."""
        caches = [self._caches[name] for name in handler.state_names]
        return [(cache.entries[key], cache.state.copy(cache.entries[key].value)) for cache in caches]

    def write(self, handler: Handler, key: str, states: Sequence[Any]) -> None:
        """Raise for this one event what writing the states would later raise for the whole batch."""
        written = {
            (name, key): self._caches[name].state.encode(value)
            for name, value in zip(handler.state_names, states, strict=True)
        }
        self.written |= written

    def called(self, item: Item, handler: Handler, seconds: float, error_type: str | None = None) -> None:
        self._observe(handler, seconds)
        self._trace_call(item, handler, seconds, error_type)

    def _trace_call(self, item: Item, handler: Handler, seconds: float, error_type: str | None = None) -> None:
        if self.tracing.wants_call(item.is_sampled, seconds, error_type is not None):
            self.calls.append(Called(item, handler, seconds, time.time_ns(), error_type))

    def fail(self, item: Item, handler: Handler, error: BaseException, saved: Saved | None, started: float) -> None:
        if not self.is_careful:
            raise HandlerFailedError(item) from error
        key = item.key
        assert key is not None
        for entry, value in saved or ():
            entry.value = value
        self.emitter.undo()
        seconds = time.perf_counter() - started
        if isinstance(error, Skip):
            item.outcome = Outcome.SKIPPED_BY_HANDLER
            self._order.skipped(item)
            self.called(item, handler, seconds)
            return
        if not isinstance(error, HandlerVerdict):
            self._report_failed(item, error)
        self.failed_keys.add(key)
        self._order.failed(item)
        item.failed(Outcome.HANDLER_ERROR, failure_of(handler, error))
        self.called(item, handler, seconds, type(error).__name__)

    def _refuse_unreadable(self, items: Sequence[Item]) -> Sequence[Item]:
        """Fail the events whose state does not fit its class; return the others, and those that have an order."""
        reasons = {key: error for cache in self._caches.values() for key, error in cache.unreadable.items()}
        if not reasons:
            return items
        for item in items:
            if item.key not in reasons:
                continue
            if item.key in self.failed_keys:
                item.outcome = Outcome.BEHIND_KEY
                continue
            reason = f"the state of this key does not fit its class: {text_of(reasons[item.key])}"
            self._order.blame(item, HandlerError(reason, item.handler.name if item.handler else ""))
            if item.outcome is not Outcome.READY:
                self.failed_keys.add(item.key)
        return [item for item in items if item.outcome is Outcome.READY]


_way = attrgetter("handler.way")
