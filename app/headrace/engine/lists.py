"""Calls batch handlers: with lists of events that follow each other in the partition, each list in one call.

A list holds what comes next in the log, so that a run has always done what comes before an event that it has not come
to. If a call raises, the quick run is undone as for any handler. The careful run halves the list until the one event is
found that makes it raise: that event fails alone, the later ones of its key wait behind it, and all others are applied.
A call that does not return for one list is made again for its events one at a time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.database.pool import Connection
from headrace.engine.invoke import await_handler, call_handler, savepoint
from headrace.handlers.inject import States, Transaction
from headrace.handlers.subscription import Handler
from headrace.item import Item, Outcome
from headrace.stopping import ends_the_task

if TYPE_CHECKING:
    from headrace.engine.run import Run, Saved


class Listed(NamedTuple):
    """The items of one call, and what its handler is given of them."""

    items: list[Item]
    event: list[Any]
    envelope: list[Any]


class ListCalls:
    """The calls of one batch handler in one run, over items that follow each other."""

    def __init__(self, run: Run, handler: Handler, items: Sequence[Item]) -> None:
        self._run = run
        self._handler = handler
        self._waiting = deque(items)
        self._suspects = 0
        """So many of those that wait were in a list that raised."""
        self._may_end = False
        """True once the run has done something, so that it gets anywhere."""
        self._emitted = (0, 0)
        self._saved: Saved = []

    def call(self) -> None:
        """Call a synchronous handler; for a thread."""
        run, handler = self._run, self._handler
        for listed in self._lists():
            began = run.began
            try:
                states = self._begin(listed)
                call_handler(listed, handler, states, run.emitter)
                self._write(listed, states)
            except BaseException as error:  # nobody cancels a thread: whatever comes out is the handler's
                self._fail(listed, error, began)
            else:
                self._applied(listed, time.perf_counter() - began)

    async def await_calls(self, connection: Connection | None) -> None:
        """Call an async handler. Raises: as `Run.execute` does."""
        run, handler, task = self._run, self._handler, asyncio.current_task()
        assert task is not None
        guarded = connection if run.is_careful and handler.signature.wants_transaction else None
        for listed in self._lists():
            began, (seconds, is_cut) = run.began, run.limit(handler)
            transaction = None
            if connection is not None:
                transaction = Transaction(connection, listed.envelope[-1], run.outbox_slots)
            limit = asyncio.timeout(seconds)
            try:
                states = self._begin(listed)
                async with savepoint(guarded):
                    await await_handler(listed, handler, states, transaction, run.emitter, limit)
                self._write(listed, states)
                run.check_wanted(task)
            except BaseException as error:
                if ends_the_task(error, task):
                    raise
                run.check_wanted(task, error)
                if limit.expired() and (is_cut or not run.is_careful):
                    raise run.overdue(listed.items[0], time.perf_counter() - began) from error
                if transaction is not None and transaction.unavailable is not None:
                    raise transaction.unavailable from error
                self._fail(listed, error, began)
            else:
                self._applied(listed, time.perf_counter() - began)

    def _lists(self) -> Iterator[Listed]:
        """Yield what the next call is for, until nothing is left or the run is to end; one event at least ends."""
        run, failed, waiting = self._run, self._run.failed_keys, self._waiting
        ends_at, later = run.end(time.perf_counter())
        self._may_end = ends_at < math.inf
        while waiting:
            now = time.perf_counter()
            if run.is_ending or (now > ends_at and self._may_end):
                return
            ends_at = later
            most = max(1, self._suspects // 2) if self._suspects else run.lists.next(self._handler)
            items: list[Item] = []
            while waiting and len(items) < most:
                item = waiting.popleft()
                if item.key in failed:
                    item.outcome = Outcome.BEHIND_KEY
                else:
                    items.append(item)
            if items:
                run.begin_call(items[0], now, len(items))
                yield Listed(items, [item.event for item in items], [item.envelope for item in items])

    def _begin(self, listed: Listed) -> list[States[Any]]:
        """Return the states of the list; of a careful run, what undoes the call is kept."""
        run, handler, items = self._run, self._handler, listed.items
        self._saved = []
        self._emitted = run.emitter.begin_list(items)
        keys: dict[int, str] = {id(item.event): item.key or "" for item in items}
        own = list(dict.fromkeys(keys.values()))
        if run.is_careful:
            self._saved = [pair for key in own for pair in run.save(handler, key)]
        return [States({key: entries[key].value for key in own}, keys) for entries in run.entries_of(handler)]

    def _write(self, listed: Listed, states: Sequence[States[Any]]) -> None:
        run, handler = self._run, self._handler
        if run.is_careful:
            for key in {item.key for item in listed.items if item.key is not None}:
                run.write(handler, key, [each[key] for each in states])

    def _fail(self, listed: Listed, error: BaseException, began: float) -> None:
        """Fail a single event; of several, the ones that are at fault are looked for."""
        run, items = self._run, listed.items
        run.emitter.end_list()
        if len(items) == 1 or not run.is_careful:
            self._suspects, self._may_end = 0, True
            run.fail(items[0], self._handler, error, self._saved, began)
            return
        for entry, value in self._saved:
            entry.value = value
        run.emitter.undo_list(self._emitted)
        self._suspects = len(items)
        self._waiting.extendleft(reversed(items))

    def _applied(self, listed: Listed, seconds: float) -> None:
        run, items = self._run, listed.items
        run.emitter.end_list()
        for item in items:
            item.outcome = Outcome.APPLIED
        self._may_end = True
        self._suspects = max(0, self._suspects - len(items))
        if not (self._suspects or run.is_ending):  # else an abandoned call would tell its time
            run.lists.took(self._handler, len(items), seconds)
        is_traced = run.tracing.enabled
        first = next((each for each in items if is_traced and each.is_sampled), items[0])
        run.called(first, self._handler, seconds)
