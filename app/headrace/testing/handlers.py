"""Runs a service's handlers without any server: given events, when an event, then state, emits and timers."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

from headrace.cloudevents import decode_record
from headrace.database.pool import Connection, open_session
from headrace.engine.effects import Effects
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError, EventError, HeadraceError
from headrace.handlers.subscription import Handler
from headrace.item import Item
from headrace.log.ports import NewRecord, StoredRecord
from headrace.publishing.publisher import checked_event
from headrace.sagas.kept import SAGA_STATE
from headrace.sagas.kept import Kept as KeptSaga
from headrace.telemetry.trace_context import TraceContext
from headrace.testing.application import Application, platform_of, subscription_with_state
from headrace.testing.kept import Clock, Kept, MemoryTopics, Pending
from headrace.testing.loop import Loop
from headrace.testing.own import shown
from headrace.testing.owner import Owner, threads
from headrace.testing.then import Step, Then, Timer, is_verdict, step_of, timer_of
from headrace.testing.written import written
from headrace.windows.kept import KeptWindows

T = TypeVar("T")
Errors = type[BaseException] | tuple[type[BaseException], ...]

MOST_EVENTS = 5_000
"""Events that one call may lead to: handlers that answer each other for ever are found by it."""

DAY_SECONDS = 86_400.0

NEEDS_DATABASE = (
    "{handler} takes a Transaction, and SQL needs a real database: use the fixture `handlers` of headrace's pytest "
    "plugin, which brings one, or Handlers(app, database=lambda: 'postgresql://...')."
)


class Handlers:
    """A service's handlers, its states, timers and lanes, in memory.

        handlers = Handlers(app)
        handlers.given(WalletCredited(customer="ada", amount=70))
        then = handlers.when(WalletDebited(customer="ada", amount=100))
        assert then.state(Wallet) == Wallet(balance=-30)
        assert then.emits == [WalletOverdrawn(customer="ada", balance=-30)]

    Events are checked as at the door and decoded as from the log. What a handler raises is raised by the call, as it
    is, and has changed nothing. `database` returns the address of a database, for handlers that take a Transaction.
    """

    def __init__(self, app: Application, *, database: Callable[[], str] | None = None) -> None:
        self.platform = platform_of(app)
        self.clock = Clock()
        self._registry = self.platform.registry
        self._topics = MemoryTopics(self.clock)
        self._database = database
        self._connection: Connection | None = None
        self._loop = Loop()
        self._threads = threads()
        self._owners: dict[str, Owner] = {}
        for name, subscription in self._registry.subscriptions.items():
            kept = Kept()
            schedules = [each.timer(each.after(self.clock.datetime)) for each in subscription.schedules.values()]
            kept.change_timers(schedules, self.clock.now)
            self._owners[name] = self._owner(name, kept)

    def close(self) -> None:
        """End the thread that handlers ran in, and the connection if there is one."""
        self._loop.run(self._disconnect)
        self._loop.close()
        self._threads.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Given

    def given(self, *events: Any, key: str | None = None) -> None:
        """Apply events that happened before; what they emitted has left."""
        __tracebackhide__ = True
        for event in events:
            self.when(event, key=key)

    def given_state(self, key: str, value: Any, *, subscription: str | None = None) -> None:
        """Let a state of a key be this value. Raises: ValueError if it would not come back from its JSON."""
        owner = self._owner_with(type(value), subscription)
        state = next(each for each in owner.subscription.states.values() if each.model is type(value))
        _, version = owner.kept.states.get((state.name, key), (b"", 0))
        if state.keeping.ttl_seconds is not None:
            owner.kept.ends[state.name, key] = self.clock.now + state.keeping.ttl_seconds
        owner.kept.states[state.name, key] = state.encode(value), version + 1
        owner.forget_states()

    # When

    def when(
        self,
        event: Any,
        *,
        key: str | None = None,
        id: str | None = None,
        sequence: int | None = None,
        time: datetime | None = None,
        allow: Errors = (),
        subscription: str = "",
    ) -> Then:
        """Let the handlers of one event run, in each subscription that takes it, and return what came of it.

        The event is an object of a declared type, or a `NewRecord` as a foreign topic has it. What a handler raises is
        raised, as it is, unless it is one of `allow`: then `fate` says what the policy makes of it. What is emitted is
        not handled further; `run` does that. `subscription` names the only one that takes the event. A list of events
        arrives as one batch, which is what a batch handler is for. `sequence` and `time` are those of the envelope,
        which a subscription with an order looks at.
        """
        __tracebackhide__ = True
        events = event if isinstance(event, list) else [event]
        records = [self._recorded(each, key, id, sequence, time) for each in events]
        return self._then(self._deliver(records, allow, subscription))

    def run(self, *events: Any, allow: Errors = ()) -> Then:
        """Let events be handled, and all that follows from them: emits of emits, until nothing is left to do now."""
        __tracebackhide__ = True
        steps: list[Step] = []
        for event in events:
            made = self._deliver([self._recorded(event)], allow)
            emitted = [self._topics.append(each.record) for step in made for each in step.sent]
            steps += made + self._follow_emits(emitted, allow)
        return self._then(steps)

    def move(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0, allow: Errors = ()
    ) -> Then:
        """Move the clock. Timers and retries that come due on the way happen in their order, with all that follows."""
        __tracebackhide__ = True
        until = self.clock.now + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
        steps: list[Step] = []
        while (due := self._next_due()) is not None and due <= until:
            self.clock.moved_seconds += max(0.0, due - self.clock.now)
            steps += self._retry(allow)
            steps += self._follow_emits(self._fired(), allow)
            if len(steps) > MOST_EVENTS:
                raise _endless(steps)
        self.clock.moved_seconds += max(0.0, until - self.clock.now)
        return self._then(steps)

    # Then

    def state(self, model: type[T], key: str, *, subscription: str | None = None) -> T:
        """Return a state; a key without one has the class's first value."""
        owner = self._owner_with(model, subscription)
        state = next(each for each in owner.subscription.states.values() if each.model is model)
        raw, _ = owner.kept.state(state.name, key, self.clock.now)
        value: T = state.load(raw)[0] if raw else state.create()
        return value

    def rows(self, model: type[T]) -> list[T]:
        """Return the rows of the projection of the class, by key. Raises: ConfigurationError (there is none)."""
        for name, projection in self._registry.projections.items():
            if projection.table.model is model:
                table, kept = projection.table, self._owners[name].kept.rows
                return [model(**table.row_of(kept[key])) for key in sorted(kept)]
        raise ConfigurationError(f"no projection has rows of {model.__name__}; declare one: events.projection(...).")

    def states(self, model: type[T], *, subscription: str | None = None) -> dict[str, T]:
        """Return every state of the class, by key."""
        owner = self._owner_with(model, subscription)
        name = next(each.name for each in owner.subscription.states.values() if each.model is model)
        now = self.clock.now
        keys = sorted(key for state, key in owner.kept.states if state == name and owner.kept.state(name, key, now)[0])
        return {key: self.state(model, key, subscription=subscription) for key in keys}

    def saga(self, name: str, key: str) -> KeptSaga:
        """Return where a saga stands: its `status`, `step`, `reason`, `data` and `history`."""
        if name not in self._registry.sagas:
            raise ConfigurationError(f"the service declares no saga {name!r}.")
        owner = self._owners[name]
        raw, version = owner.kept.states.get((SAGA_STATE, key), (b"", 0))
        state = owner.subscription.states[SAGA_STATE]
        saga: KeptSaga = state.load(raw)[0] if version else state.create()
        return saga

    def windows(self, name: str, key: str) -> KeptWindows:
        """Return what is kept of the windows of a key: those that are `open`, and how many events were `late`."""
        if name not in self._registry.windows:
            raise ConfigurationError(f"the service declares no windows {name!r}.")
        (state,) = self._owners[name].subscription.states.values()
        kept: KeptWindows = self.state(state.model, key, subscription=name)
        return kept

    @property
    def timers(self) -> list[Timer]:
        """The timers that are set, the next one first; `at` says when each is due."""
        pending = sorted((each for _, each in self._pending()), key=lambda each: each.due)
        return [timer_of(each.timer, self._registry.types) for each in pending]

    # Inside

    def _recorded(
        self,
        event: Any,
        key: str | None = None,
        id: str | None = None,
        sequence: int | None = None,
        time: datetime | None = None,
    ) -> StoredRecord:
        if isinstance(event, NewRecord):
            return self._topics.append(event)
        checked = checked_event(self._registry, event, _untraced, key=key, id=id, sequence=sequence, time=time)
        return self._topics.append(written(self._registry, checked))

    def _follow_emits(self, records: Sequence[StoredRecord], allow: Errors) -> list[Step]:
        """Deliver what has left, and what its handlers emit, in order; what no handler here takes is others'."""
        __tracebackhide__ = True
        steps: list[Step] = []
        waiting = deque(records)
        while waiting:
            record = waiting.popleft()
            if not any(owner.takes(_type_of(record)) for owner in self._owners_of(record)):
                continue
            made = self._deliver([record], allow)
            waiting += [self._topics.append(each.record) for step in made for each in step.sent]
            steps += made
            if len(steps) > MOST_EVENTS:
                raise _endless(steps)
        return steps

    def _deliver(self, records: Sequence[StoredRecord], allow: Errors, only: str = "") -> list[Step]:
        """Let every subscription that takes them handle the records, those of a topic as one batch."""
        __tracebackhide__ = True
        shares: dict[tuple[str, str], list[StoredRecord]] = {}
        for record in records:
            for owner in self._takers(record, only):
                shares.setdefault((owner.subscription.name, record.topic), []).append(record)
        steps: list[Step] = []
        for (name, topic), mine in shares.items():
            owner, type_ = self._owners[name], self._known_type(mine[0]) if len(mine) == 1 else None
            self._connect(owner, type_)

            async def attempt(
                owner: Owner = owner, mine: list[StoredRecord] = mine, type_: str | None = type_
            ) -> Effects:
                async with self._transaction(owner, type_) as connection:
                    effects = await owner.attempt(mine, connection, careful=True)
                    _raise(owner, effects.items, allow)
                    return effects

            steps += self._commit(owner, attempt, topic)
            steps += self._retry_lanes(name, self._owners[name].take_filled(), allow)
        return steps

    def _known_type(self, record: StoredRecord) -> str | None:
        return None if record.topic in self._registry.decoders else _type_of(record)

    def _takers(self, record: StoredRecord, only: str) -> list[Owner]:
        """Return the subscriptions that take a record. Raises: ConfigurationError (none does)."""
        type_ = self._known_type(record)
        takers = [
            owner for owner in self._owners_of(record) if owner.takes(type_) and only in ("", owner.subscription.name)
        ]
        if not takers:
            where = f"the subscription {only!r}" if only else "any subscription"
            raise ConfigurationError(f"no handler of {where} takes {type_ or record.topic}; declare one with .on(...).")
        return takers

    def _retry(self, allow: Errors) -> list[Step]:
        """Run the lanes that are due."""
        __tracebackhide__ = True
        steps: list[Step] = []
        for name, owner in list(self._owners.items()):
            steps += self._retry_lanes(name, owner.due_lanes(), allow)
        emitted = [self._topics.append(each.record) for step in steps for each in step.sent]
        return steps + self._follow_emits(emitted, allow)

    def _retry_lanes(self, name: str, keys: Sequence[str], allow: Errors) -> list[Step]:
        __tracebackhide__ = True
        steps: list[Step] = []
        for key in keys:
            owner = self._owners[name]
            self._connect(owner, None)

            async def retry(owner: Owner = owner, key: str = key) -> Effects:
                async with self._transaction(owner, None) as connection:
                    effects = await owner.retry([key], connection)
                    _raise(owner, effects.items, allow)
                    return effects

            steps += self._commit(owner, retry, owner.kept.parked[key][0][1].topic)
        return steps

    def _commit(self, owner: Owner, work: Callable[[], Coroutine[Any, Any, Effects]], topic: str) -> list[Step]:
        """Run the work and keep what it did; if it raises, nothing has happened."""
        __tracebackhide__ = True
        name = owner.subscription.name
        try:
            effects = shown(lambda: self._loop.run(work))
        except BaseException:
            self._owners[name] = self._owner(name, owner.kept)
            raise
        owner.commit(effects, topic)
        types = self._registry.types
        return [
            step_of(item, name, owner.policies.of(item.handler), types, effects.emits, effects.timers)
            for item in effects.items
        ]

    @asynccontextmanager
    async def _transaction(self, owner: Owner, type_: str | None) -> AsyncIterator[Connection | None]:
        """Lend a transaction if a handler of the type takes one."""
        if not _taking_transactions(owner, type_):
            yield None
            return
        assert self._connection is not None
        async with self._connection.transaction():
            yield self._connection

    def _connect(self, owner: Owner, type_: str | None) -> None:
        """Connect if a handler of the type takes a Transaction. Called in the test's thread, which has the fixtures."""
        taking = _taking_transactions(owner, type_)
        if not taking or self._connection is not None:
            return
        if self._database is None:
            raise ConfigurationError(NEEDS_DATABASE.format(handler=taking[0].name))
        address = self._database()

        async def connect() -> Connection:
            return await open_session(self.platform.settings, address, idle_seconds=DAY_SECONDS)

        self._connection = self._loop.run(connect)

    async def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()  # the database may be gone already

    def _fired(self) -> list[StoredRecord]:
        """Take the timers that are due; what they were set for leaves now."""
        fired = [(kept, each) for kept, each in self._pending() if each.due <= self.clock.now]
        records = []
        for kept, each in sorted(fired, key=lambda pair: pair[1].due):
            timer = each.timer
            del kept.timers[timer.type, timer.key, timer.name]
            records.append(self._topics.append(timer.record))
            if timer.cron is not None:
                schedules = [owner.subscription.schedules.get(timer.name) for owner in self._owners.values()]
                kept.change_timers(
                    (each.timer(each.after(self.clock.datetime)) for each in schedules if each is not None), 0.0
                )
        return records

    def _next_due(self) -> float | None:
        due = [each.due for _, each in self._pending()]
        lanes = [lane.due for owner in self._owners.values() for lane in owner.kept.lanes.values()]
        return min((each for each in due + lanes if each < float("inf")), default=None)

    def _pending(self) -> Iterator[tuple[Kept, Pending]]:
        for owner in self._owners.values():
            for each in owner.kept.timers.values():
                yield owner.kept, each

    def _owners_of(self, record: StoredRecord) -> list[Owner]:
        return [owner for owner in self._owners.values() if record.topic in owner.subscription.topics]

    def _owner(self, name: str, kept: Kept) -> Owner:
        return Owner(self.platform, self._registry.subscriptions[name], kept, self.clock, self._threads)

    def _owner_with(self, model: type[Any], subscription: str | None) -> Owner:
        return self._owners[subscription_with_state(self.platform, model, subscription).name]

    def _then(self, steps: list[Step]) -> Then:
        def read(model: type[Any], key: str | None, subscription: str | None) -> Any:
            if key is None:
                raise ConfigurationError(f"no event was handled whose key tells which {model.__name__}; name the key.")
            return self.state(model, key, subscription=subscription)

        return Then(steps, read)


def _raise(owner: Owner, items: Sequence[Item], allow: Errors) -> None:
    """Raise what a handler raised, with its traceback, unless it is allowed."""
    for item in items:
        if item.error is None or item.error.__cause__ is None or isinstance(item.error, EventError):
            continue
        error, traceback = owner.raised.get(id(item), (item.error.__cause__, None))
        if not is_verdict(error) and not isinstance(error, allow):
            raise error.with_traceback(traceback)


def _taking_transactions(owner: Owner, type_: str | None) -> list[Handler]:
    """Return the handlers of an event type, or of all, that take a Transaction."""
    handlers = owner.subscription.handlers
    return [each for name, each in handlers.items() if type_ in (None, name) and each.signature.wants_transaction]


def _endless(steps: Sequence[Step]) -> HeadraceError:
    names = sorted({f"{step.subscription}.{step.handler}" for step in steps[-10:]})
    return HeadraceError(f"{len(steps):,} events followed, and no end is in sight: {', '.join(names)} go on.")


def _type_of(record: StoredRecord) -> str:
    return decode_record(record)[0].type


def _untraced(topic: str, envelope: Envelope) -> TraceContext:
    return TraceContext(None, None)
