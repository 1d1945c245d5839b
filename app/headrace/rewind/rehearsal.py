"""Runs today's handlers over a part of the log, in memory: nothing is read from Postgres, and nothing is written."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from opentelemetry.trace import NoOpTracerProvider

from headrace.engine.batch import emitter_of
from headrace.engine.decode import BatchDecoder, decoded
from headrace.engine.failures import HandlerFailedError, OverdueError
from headrace.engine.memory import keys_by_state
from headrace.engine.policies import Policies
from headrace.engine.run import Run
from headrace.engine.threads import HandlerThreads
from headrace.errors import HandlerError
from headrace.handlers.subscription import Handler, Subscription
from headrace.item import Item, Outcome
from headrace.ledger.window import DedupeWindow
from headrace.log.ports import NewRecord, Record, TopicPartition, position_of
from headrace.rebuild.replay import Letters
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.state.cache import StateCache
from headrace.telemetry.tracing import Tracing
from headrace.timers.changes import Change

Place = tuple[str, int, int]
"""Topic, partition and offset of a record."""


class Heard(NamedTuple):
    """What came of some records."""

    items: Sequence[Item]
    """Those whose handler ran; what it raised is an item's `error`."""
    emits: Sequence[tuple[Item, NewRecord]]
    timers: Sequence[tuple[Item, Change]]


class Rehearsal:
    """The handlers of one subscription, with states of their own that begin with nothing."""

    def __init__(self, registry: Registry, subscription: Subscription, settings: Settings) -> None:
        self._registry = registry
        self._subscription = subscription
        self._settings = settings
        self._decoder = BatchDecoder(subscription, registry.types, registry.decoders)
        self._policies = Policies(subscription, settings.engine)
        self._threads = HandlerThreads(subscription.name, 1)
        self._windows: dict[TopicPartition, DedupeWindow] = {}
        self._held: set[str] = set()
        """Keys that wait for an operator, behind an event that failed, and those in `gaps`."""
        self._caches = {name: StateCache(state, sys.maxsize) for name, state in subscription.states.items()}
        self._written: dict[str, set[str]] = {name: set() for name in subscription.states}
        self.letters = Letters(())
        """What became of the events that were given up on."""
        self.parked: Collection[Place] = frozenset()
        """Events that wait in lanes, and are left out."""
        self.waiting: Collection[Place] = frozenset()
        """Events that are run, and have not been applied."""
        self.gaps: dict[str, Item] = {}
        """Keys whose order is not known from an event on that came before its turn: it was applied in the end, and the
        log does not tell whether those before it were waited for in vain."""

    def close(self) -> None:
        """End the thread that handlers ran in."""
        self._threads.stop()

    def states(self, name: str, keys: Collection[str]) -> dict[str, bytes]:
        """Return the JSON of a state by key, of those keys that have one. Raises: ValueError (it cannot be kept)."""
        cache, written = self._caches[name], self._written[name]
        return {key: cache.state.encode(cache.entries[key].value) for key in keys if key in written}

    async def keys(self, records: Sequence[Record]) -> list[Item]:
        """Return the items of records, with their keys; nothing runs, and nothing is remembered."""
        return await decoded(lambda: asyncio.to_thread(self._decoder.decode, records, {}))

    async def run(self, place: TopicPartition, records: Sequence[Record], only: Collection[str] | None = None) -> Heard:
        """Run the handlers over the next records of a partition, or those of some keys only.

        An event that fails changes nothing, and its key goes on, or is held, as its policy says in the end.
        Raises: HandlerError (a handler does not return).
        """
        # In a thread, since a service that is rewound has a loop to keep free.
        items = await decoded(lambda: asyncio.to_thread(self._take, place, records))
        chosen = [item for item in items if item.outcome is Outcome.READY and (only is None or item.key in only)]
        emits: list[tuple[Item, NewRecord]] = []
        timers: list[tuple[Item, Change]] = []
        waiting = [item for item in chosen if not self._is_left_out(item)]
        while waiting:
            heard = await self._run(waiting)
            emits += heard.emits
            timers += heard.timers
            self._hold(heard.items)
            waiting = [item for item in waiting if item.outcome is Outcome.BEHIND_KEY and item.key not in self._held]
            for item in waiting:
                item.outcome = Outcome.READY
        return Heard(
            [item for item in chosen if item.outcome not in (Outcome.READY, Outcome.BEHIND_KEY, Outcome.HELD)],
            emits,
            timers,
        )

    def _take(self, place: TopicPartition, records: Sequence[Record]) -> list[Item]:
        window = self._windows.setdefault(place, DedupeWindow(self._settings.engine.dedupe_window_ids))
        edited = [each for record in records if (each := self.letters.applied(record)) is not None]
        items = self._decoder.decode(edited, window.marks)
        fresh = [item for item in items if item.outcome is Outcome.READY]
        window.add([item.identity for item in fresh], [item.mark for item in fresh], time.time())
        return items

    def _is_left_out(self, item: Item) -> bool:
        return item.key in self._held or position_of(item.record) in self.parked

    async def _run(self, items: Sequence[Item]) -> Heard:
        for name, keys in keys_by_state(items, Outcome.READY, self._caches).items():
            for key in self._caches[name].missing(keys):
                self._caches[name].put(key, b"", 0)
        settings = self._settings
        run = Run(
            items,
            self._caches,
            emitter_of(self._registry, self._subscription, settings.kafka.max_record_bytes),
            careful=True,
            timeout_seconds=settings.engine.handler_seconds,
            observe=_ignore,
            failed=_unheard,
            tracing=_untraced,
        )
        try:
            await run.execute(self._threads, None)
        except (OverdueError, HandlerFailedError) as error:  # the second: of a list of events
            item = error.item or items[0]
            name = item.handler.name if item.handler is not None else ""
            raise HandlerError(f"{name} does not return at {where(item)}; mend it first.", name) from error
        for name, keys in run.touched().items():
            self._written[name] |= keys
        return Heard(items, run.emitter.emitted, run.emitter.timers)

    def _hold(self, items: Sequence[Item]) -> None:
        for item in items:
            is_last = item.outcome is Outcome.HANDLER_ERROR and self._policies.of(item.handler).at_end == "hold"
            is_unknown = item.outcome is Outcome.HELD and position_of(item.record) not in self.waiting
            if (is_last or is_unknown) and item.key is not None:
                self._held.add(item.key)
                if is_unknown:
                    self.gaps[item.key] = item


def where(item: Item) -> str:
    """Return the place of the item's record, for a person."""
    return f"{item.record.topic}/{item.record.partition}/{item.record.offset}"


def _ignore(handler: Handler, seconds: float) -> None: ...


def _unheard(item: Item, error: BaseException) -> None: ...


_untraced = Tracing(provider=NoOpTracerProvider())

Report = Callable[[int, int], None]
"""(offsets done, offsets in all): called after each step."""

Targets = Mapping[TopicPartition, int]
"""Offsets by partition."""
