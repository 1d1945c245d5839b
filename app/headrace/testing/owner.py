"""Applies records to one subscription in memory, with the engine's own decoder, run, verdicts and policies.

What an owner of a partition does in Postgres is done here in a `Kept`: read states, run the handlers, write everything
or nothing. An owner that dies is one that is dropped; the next one is made of the same `Kept`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from operator import itemgetter
from types import TracebackType

import msgspec
from opentelemetry.trace import NoOpTracerProvider

from headrace.database.pool import Connection
from headrace.engine.batch import emitter_of
from headrace.engine.decode import BatchDecoder, decoded
from headrace.engine.effects import Effects
from headrace.engine.failures import HandlerFailedError
from headrace.engine.list_sizes import ListSizes
from headrace.engine.memory import PartitionMemory, keys_by_state
from headrace.engine.policies import Policies
from headrace.engine.run import Run
from headrace.engine.settle import changed_states, settle
from headrace.engine.threads import HandlerThreads
from headrace.handlers.subscription import Handler, Subscription
from headrace.item import Item, Outcome
from headrace.ledger.rows import Kind
from headrace.ledger.window import DedupeWindow
from headrace.log.ports import StoredRecord
from headrace.order.declared import gives_up
from headrace.platform import Headrace
from headrace.telemetry.tracing import Tracing
from headrace.testing.kept import Clock, Kept
from headrace.testing.steps import KeptSteps

Raised = tuple[BaseException, TracebackType | None]


class Owner:
    """One subscription as the owner of its only partition runs it."""

    def __init__(
        self, platform: Headrace, subscription: Subscription, kept: Kept, clock: Clock, threads: HandlerThreads
    ) -> None:
        self.subscription = subscription
        self.kept = kept
        self.raised: dict[int, Raised] = {}
        """What the handler of an item raised, by the item's id(), in the latest run."""
        self.run: Run | None = None
        """The latest run; its `current` item is the one whose handler is being called."""
        self._platform = platform
        self._clock = clock
        self._threads = threads
        self._engine = platform.settings.engine
        registry = platform.registry
        self._decoder = BatchDecoder(subscription, registry.types, registry.decoders)
        self.policies = Policies(subscription, self._engine)
        self._memory = PartitionMemory(self._engine, subscription.states, self.policies.of, order=subscription.order)
        self._memory.lanes.by_key = {key: msgspec.structs.replace(lane) for key, lane in kept.lanes.items()}
        self._memory.lanes.filled = {key: None for key, lane in self._memory.lanes.by_key.items() if lane.is_gap}
        self._memory.lanes.next_number = kept.parked_ever + 1
        for topic in subscription.topics:
            window = self._memory.windows[topic] = DedupeWindow(self._engine.dedupe_window_ids)
            for ids, marks in kept.seen[topic]:
                window.add(ids, marks, time.time())

    def key_of(self, record: StoredRecord) -> str | None:
        """Return the key that order is kept by; None if the record cannot be read."""
        return self._decoder.decode([record], {})[0].key

    def takes(self, type: str | None) -> bool:
        """True if a handler takes events of the type; None: it is not known."""
        return type is None or type in self.subscription.handlers

    async def attempt(
        self, records: Sequence[StoredRecord], connection: Connection | None = None, *, careful: bool = False
    ) -> Effects:
        """Run the handlers over records of one topic, as one batch, and return what `commit` would write.

        A batch in which a handler raises runs again with care, as in production; `careful` begins so.
        """
        marks = self._memory.windows[records[0].topic].marks
        while True:
            items = await self._decoded(records, marks)
            try:
                async with _savepoint(connection):
                    return await self._run(Kind.BATCH, items, connection, careful=careful)
            except HandlerFailedError:
                self.forget(items)
                careful = True

    async def retry(self, keys: Sequence[str], connection: Connection | None = None) -> Effects:
        """Run the lanes of some keys again, as `attempt` runs records."""
        lanes, items, numbers = self._memory.lanes, list[Item](), list[tuple[str, int]]()
        for key in keys:
            lanes.by_key[key].attempts += 1
            for number, record in sorted(self.kept.parked[key], key=itemgetter(0)):
                items += await self._decoded([record], {})
                numbers.append((key, number))
        heads: set[str] = set()
        for item, (key, number) in zip(items, numbers, strict=True):
            item.key, item.number, item.attempt = key, number, lanes.by_key[key].attempts
            if self.subscription.order is not None and lanes.has_waited(key, self._clock.now):
                item.wait_is_over = key not in heads or gives_up(self.subscription.order)
            heads.add(key)
        return await self._run(Kind.RETRY, items, connection, careful=True)

    def take_filled(self) -> list[str]:
        """Return the keys whose gap may have been filled, each once."""
        lanes = self._memory.lanes
        keys = [key for key in lanes.filled if key in lanes.by_key]
        lanes.filled.clear()
        return keys

    def due_lanes(self) -> list[str]:
        """Return the keys whose next retry is due."""
        lanes = self._memory.lanes.by_key
        return sorted((key for key, lane in lanes.items() if lane.due <= self._clock.now), key=lambda k: lanes[k].due)

    def commit(self, effects: Effects, topic: str) -> None:
        """Keep what a batch did, all of it."""
        kept = self.kept
        for name, rows in effects.states.items():
            for key, version, raw in rows:
                kept.states[name, key] = raw, version
                if (ttl := self.subscription.states[name].keeping.ttl_seconds) is not None:
                    kept.ends[name, key] = self._clock.now + ttl
        if effects.rows is not None:
            effects.rows.apply(kept.rows)
        kept.seen[topic].append(([item.identity for item in effects.seen], [item.mark for item in effects.seen]))
        kept.change_timers([change for _, change in effects.timers], self._clock.now)
        for key, lane in effects.lanes.items():
            before = self._memory.lanes.by_key.get(key)
            if before is None or before.due != lane.due:  # else it waits as long as before
                lane.due += self._clock.moved_seconds
        for item in effects.parked:
            assert item.key is not None and isinstance(item.record, StoredRecord)
            kept.parked.setdefault(item.key, []).append((item.number, item.record))
            kept.parked_ever += 1
        gone = {(item.key, item.number) for item in effects.released}
        for key in {key for key, _ in gone if key is not None}:
            kept.parked[key] = [each for each in kept.parked[key] if (key, each[0]) not in gone]
        for key in effects.closed:
            kept.parked.pop(key, None)
        self._memory.follow(topic, effects)
        kept.lanes = {key: msgspec.structs.replace(lane) for key, lane in self._memory.lanes.by_key.items()}

    def forget(self, items: Sequence[Item]) -> None:
        """Forget what a batch did that is not committed."""
        self._memory.forget({item.key for item in items if item.key is not None})

    def forget_states(self) -> None:
        """Read every state again when it is next needed, as a process does that has just started."""
        for cache in self._memory.caches.values():
            cache.forget(list(cache.entries))

    async def _decoded(self, records: Sequence[StoredRecord], marks: Mapping[bytes, int]) -> list[Item]:
        async def decode() -> list[Item]:
            return self._decoder.decode(records, marks)

        return await decoded(decode)

    async def _run(self, kind: Kind, items: Sequence[Item], connection: Connection | None, *, careful: bool) -> Effects:
        self.raised = {}
        memory, registry = self._memory, self._platform.registry
        if kind is Kind.BATCH:
            memory.lanes.hold_back(items)
        for item in items:  # what happens behind the commit happens at once here
            if item.event_type is not None and (effect := self.subscription.effects.get(item.event_type.type)):
                item.handler = effect.handler
        self._load_states(items)
        emitter = emitter_of(registry, self.subscription, self._platform.settings.kafka.max_record_bytes)
        emitter.step = KeptSteps(self.subscription.group, emitter, self.kept)
        run = self.run = Run(
            items,
            memory.caches,
            emitter,
            careful=careful,
            timeout_seconds=self._engine.handler_seconds,
            observe=_ignore,
            failed=self._note,
            tracing=_untraced,
            lists=ListSizes() if kind is Kind.BATCH else ListSizes(1),
        )
        await run.execute(self._threads, connection)
        effects = Effects(kind, run.items, 0, None, emits=run.emitter.emitted, timers=run.emitter.timers)
        effects.rows = run.emitter.table
        try:
            effects.states = changed_states(memory.caches, run)
        except Exception as error:
            if careful:
                raise
            raise HandlerFailedError from error  # with care it is found which event's handler made it so
        settle(effects, memory.lanes)
        return effects

    def _load_states(self, items: Sequence[Item]) -> None:
        for name, keys in keys_by_state(items, Outcome.READY, self._memory.caches).items():
            cache = self._memory.caches[name]
            if cache.state.keeping.ttl is not None:  # the test's clock says whether it has expired
                cache.forget(keys)
            for key in cache.missing(keys):
                cache.put(key, *self.kept.state(name, key, self._clock.now))

    def _note(self, item: Item, error: BaseException) -> None:
        self.raised[id(item)] = (error, error.__traceback__)


@asynccontextmanager
async def _savepoint(connection: Connection | None) -> AsyncIterator[None]:
    """Take back what a run wrote that failed."""
    if connection is None:
        yield
        return
    async with connection.transaction():
        yield


def threads() -> HandlerThreads:
    """Return what runs plain handlers: a thread, as in production."""
    return HandlerThreads("testing", 1)


def _ignore(handler: Handler, seconds: float) -> None: ...


_untraced = Tracing(provider=NoOpTracerProvider())
