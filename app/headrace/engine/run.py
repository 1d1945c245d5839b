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
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from typing import Any, TypeAlias

from headrace.database.pool import Connection
from headrace.emits.emitter import Emitter
from headrace.engine.attend import attend
from headrace.engine.invoke import SWALLOWED, await_handler, emit_returned, enter, savepoint
from headrace.engine.memory import keys_by_state
from headrace.engine.patience import OverdueError, Patience, Wait
from headrace.engine.threads import HandlerThreads
from headrace.engine.trace import link_of
from headrace.errors import HandlerError
from headrace.handlers.inject import Transaction
from headrace.handlers.subscription import Handler
from headrace.handlers.verdicts import HandlerVerdict, Skip
from headrace.item import Item, Outcome
from headrace.state.cache import Entry, StateCache
from headrace.telemetry.facts import HandlerCall
from headrace.telemetry.failures import text_of
from headrace.telemetry.trace_context import is_sampled
from headrace.telemetry.tracing import SLOW_CALL_SECONDS, Tracing


class HandlerFailedError(Exception):
    """A handler raised in the quick run: undo everything and run again with care."""

    def __init__(self, item: Item | None = None) -> None:
        super().__init__()
        self.item = item
        """The item whose handler raised; None if that is not known."""


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
    ) -> None:
        """`patience`: how long a call is waited for that may take longer; None if each has its whole time limit."""
        self.items = items
        self.emitter = emitter
        self._caches = caches
        self._entries_of: dict[Handler, list[dict[str, Entry]]] = {}
        self._failed: set[str] = set()
        self._careful = careful
        self._timeout = timeout_seconds
        self._patience = patience
        self.is_beside = is_beside
        """True if it runs lanes beside the batches."""
        self._target = target_seconds
        self._ends_at: float | None = None
        self._is_ending = self._is_abandoned = False
        self._connection: Connection | None = None
        self.current: Item | None = None
        """The item whose handler runs; None before and after."""
        self.began = 0.0
        """When its handler was called, as `time.perf_counter()` tells."""
        self.outbox_slots: set[int] = set()
        """Slots of the outbox that handlers have written to in the transaction."""
        self.written: dict[tuple[str, str], bytes] = {}
        """JSON by (state, key), of a careful run: nothing that happens later can spoil what could be written."""
        self._observe = observe
        self._report_failed = failed
        self._tracing = tracing
        self.calls: list[HandlerCall] = []
        """Handler calls that deserve a span."""

    async def execute(self, threads: HandlerThreads, connection: Connection | None) -> None:
        """Run READY items for about `target_seconds`, in order and one at least.

        Each that it came to is APPLIED, HANDLER_ERROR or BEHIND_KEY afterwards; the others are READY still.

        The handlers run in a thread or a task of their own, which is left behind if one of them does not return.
        Raises: HandlerFailedError (quick run only); OverdueError; StateUnavailableError when Postgres failed under a
        handler.
        """
        self._connection = connection
        ready = self._refuse_unreadable([item for item in self.items if item.outcome is Outcome.READY])
        for handler in {item.handler for item in ready}:
            assert handler is not None
            handler.follow()
            self._entries_of[handler] = [self._caches[name].entries for name in handler.state_names]
        for is_async, group in groupby(ready, key=_is_async):
            if is_async:
                work = self._run_async(list(group), connection)
            else:
                work = threads.run(partial(self._run_sync, list(group)), is_beside=self.is_beside)
            await attend(self, asyncio.create_task(work, name="handlers"))
            self.current = None  # what waits for a thread is not the last handler's fault
        if self._patience is not None:
            self._patience.called(len(ready))
        self.emitter.cause = None

    @property
    def handlers(self) -> Collection[Handler]:
        """Those that are called."""
        return self._entries_of.keys()

    def limit(self, handler: Handler) -> Wait:
        """Return how long a call is waited for, and whether its own time limit is longer."""
        seconds = handler.timeout_seconds if handler.timeout_seconds is not None else self._timeout
        return self._patience.wait(seconds) if self._patience is not None else Wait(seconds, False)

    def overdue(self, item: Item, seconds: float) -> OverdueError:
        """Return the error for a call that is given up on after so many seconds."""
        assert item.handler is not None
        is_cut = self.limit(item.handler).is_cut
        if is_cut and self._patience is not None:
            self._patience.given_up()
        return OverdueError(item, seconds, is_cut=is_cut)

    def abandon(self) -> None:
        """Run no handler after the one that runs; what that one does counts for nothing."""
        self._is_ending = self._is_abandoned = True

    def end_transaction(self) -> None:
        """End the transaction under a handler that does not return, if there is one."""
        if self._connection is not None:
            self._connection.terminate()

    def end_early(self) -> None:
        """Run no handler after the one that runs; what is done is kept."""
        self._is_ending = True

    def entries(self) -> Iterator[Entry]:
        """Return the states that a handler was given."""
        return (self._caches[name].entries[key] for name, keys in self.touched().items() for key in keys)

    def touched(self) -> dict[str, set[str]]:
        """Return the keys whose state a handler was given, by state."""
        return keys_by_state(self.items, Outcome.APPLIED, self._caches)

    def _run_sync(self, items: Sequence[Item]) -> None:
        emitter, failed, entries_of = self.emitter, self._failed, self._entries_of
        clock, calls, is_traced = time.perf_counter, 0, self._tracing.enabled
        applied = Outcome.APPLIED  # to ask an Enum for its member costs as much as a dictionary
        ends_at, limit = self._end(clock())
        for item in items:
            now = clock()
            if now > ends_at or self._is_ending:
                return
            ends_at = limit
            handler, key = item.handler, item.key
            assert handler is not None and key is not None
            if failed and key in failed:
                item.outcome = Outcome.BEHIND_KEY
                continue
            caches = entries_of[handler]
            # One state is the rule, and a comprehension costs more than all the rest of this loop.
            states = (caches[0][key].value,) if len(caches) == 1 else [entries[key].value for entries in caches]
            emitter.cause, emitter.position = item, 0
            self.current, self.began = item, now
            calls += 1
            saved = None
            try:
                if self._careful:
                    saved = self._save(handler, key)
                if handler.dependencies:
                    self._call_with_dependencies(item, handler, states)
                else:
                    returned = handler.call(item.event, item.envelope, states, emitter, None, ())
                    if returned is not None:
                        emit_returned(emitter, returned)
                if self._careful:
                    self._write(handler, key, states)
            except BaseException as error:  # nobody cancels a thread: whatever comes out is the handler's
                self._fail(item, handler, error, saved, now)
                continue
            item.outcome = applied
            if calls % SAMPLE == 1:
                self._observe(handler, clock() - now)
            if is_traced and ((seconds := clock() - now) > SLOW_CALL_SECONDS or is_sampled(item.envelope.traceparent)):
                self._trace_call(item, handler, seconds)

    def _call_with_dependencies(self, item: Item, handler: Handler, states: Sequence[Any]) -> None:
        is_done = False
        with ExitStack() as stack:
            values: list[Any] = []
            for each in handler.dependencies:
                values.append(enter(stack, each, item, self.emitter, states, values))
            emit_returned(self.emitter, handler.call(item.event, item.envelope, states, self.emitter, None, values))
            is_done = True
        if not is_done:
            raise RuntimeError(SWALLOWED)

    def _end(self, now: float) -> tuple[float, float]:
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
        ends_at, limit = self._end(time.perf_counter())
        for item in items:
            now = time.perf_counter()
            if now > ends_at or self._is_ending:
                return
            ends_at = limit
            handler, key = item.handler, item.key
            assert handler is not None and key is not None
            if key in self._failed:
                item.outcome = Outcome.BEHIND_KEY
                continue
            states = [entries[key].value for entries in self._entries_of[handler]]
            self.emitter.cause, self.emitter.position = item, 0
            self.current, self.began = item, now
            transaction = Transaction(connection, item.envelope, self.outbox_slots) if connection else None
            started, saved = time.perf_counter(), None
            seconds, is_cut = self.limit(handler)
            time_limit = asyncio.timeout(seconds)
            try:
                if self._careful:
                    saved = self._save(handler, key)
                async with savepoint(connection if self._careful and handler.signature.wants_transaction else None):
                    await await_handler(item, handler, states, transaction, self.emitter, time_limit)
                if self._careful:
                    self._write(handler, key, states)
                if task.cancelling() or self._is_abandoned:
                    raise asyncio.CancelledError  # the handler swallowed it
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                if task.cancelling() or self._is_abandoned:
                    raise asyncio.CancelledError from error
                if time_limit.expired() and (is_cut or not self._careful):
                    raise self.overdue(item, time.perf_counter() - self.began) from error
                if transaction is not None and transaction.unavailable is not None:
                    raise transaction.unavailable from error
                self._fail(item, handler, error, saved, started)
                continue
            item.outcome = Outcome.APPLIED
            self._called(item, handler, time.perf_counter() - started)

    def _save(self, handler: Handler, key: str) -> Saved:
        """Return the states' entries with copies: a run that is given up on must not reach what is loaded anew."""
        caches = [self._caches[name] for name in handler.state_names]
        return [(cache.entries[key], cache.state.copy(cache.entries[key].value)) for cache in caches]

    def _write(self, handler: Handler, key: str, states: Sequence[Any]) -> None:
        """Raise for this one event what writing the states would later raise for the whole batch."""
        written = {
            (name, key): self._caches[name].state.encode(value)
            for name, value in zip(handler.state_names, states, strict=True)
        }
        self.written |= written

    def _called(self, item: Item, handler: Handler, seconds: float, error_type: str | None = None) -> None:
        self._observe(handler, seconds)
        self._trace_call(item, handler, seconds, error_type)

    def _trace_call(self, item: Item, handler: Handler, seconds: float, error_type: str | None = None) -> None:
        if self._tracing.wants_call(item.envelope.traceparent, seconds, error_type is not None):
            ended_ns = time.time_ns()
            started_ns = ended_ns - round(seconds * 1e9)
            self.calls.append(HandlerCall(handler.name, link_of(item), started_ns, ended_ns, error_type))

    def _fail(self, item: Item, handler: Handler, error: BaseException, saved: Saved | None, started: float) -> None:
        if not self._careful:
            raise HandlerFailedError(item) from error
        key = item.key
        assert key is not None
        for entry, value in saved or ():
            entry.value = value
        self.emitter.undo()
        seconds = time.perf_counter() - started
        if isinstance(error, HandlerVerdict):
            if isinstance(error, Skip):
                item.outcome = Outcome.SKIPPED_BY_HANDLER
                self._called(item, handler, seconds)
                return
            wrapped = HandlerError(f"{handler.name}: {text_of(error)}", handler.name)
        else:
            self._report_failed(item, error)
            wrapped = HandlerError(f"{handler.name} raised {type(error).__name__}: {text_of(error)}", handler.name)
        self._failed.add(key)
        wrapped.__cause__ = error
        item.failed(Outcome.HANDLER_ERROR, wrapped)
        self._called(item, handler, seconds, type(error).__name__)

    def _refuse_unreadable(self, items: Sequence[Item]) -> list[Item]:
        """Fail the events whose state does not fit its class; return the others."""
        reasons = {key: error for cache in self._caches.values() for key, error in cache.unreadable.items()}
        if not reasons:
            return list(items)
        for item in items:
            if item.key not in reasons:
                continue
            if item.key in self._failed:
                item.outcome = Outcome.BEHIND_KEY
                continue
            self._failed.add(item.key)
            reason = f"the state of this key does not fit its class: {text_of(reasons[item.key])}"
            item.failed(Outcome.HANDLER_ERROR, HandlerError(reason, item.handler.name if item.handler else ""))
        return [item for item in items if item.outcome is Outcome.READY]


def _is_async(item: Item) -> bool:
    return item.handler is not None and item.handler.is_async
