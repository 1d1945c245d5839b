"""Runs a service's handlers over one log, once in order to know what is right, and then as a schedule says."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from headrace.cloudevents import decode_record
from headrace.engine.effects import Effects
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.item import Item, Outcome
from headrace.log.ports import NewRecord, StoredRecord
from headrace.platform import Headrace
from headrace.publishing.publisher import checked_event
from headrace.sagas.kept import SAGA_STATE
from headrace.telemetry.trace_context import TraceContext
from headrace.testing.exactly_once.outside import Outside, differences
from headrace.testing.exactly_once.schedule import Batch, Label, Schedule
from headrace.testing.exactly_once.surroundings import another_time, watching
from headrace.testing.exactly_once.tables import Tables
from headrace.testing.kept import Clock, Kept, MemoryTopics
from headrace.testing.owner import Owner, threads
from headrace.testing.then import is_verdict, step_of
from headrace.testing.written import written

MOST_EVENTS = 10_000


@dataclass
class Entry:
    """One event of the log."""

    label: Label
    record: StoredRecord
    envelope: Envelope
    key: str
    cause: Label | None = None
    """The event whose handler emitted it; None: it was given."""


@dataclass
class Result:
    """What came of a log. Everything in it is compared, except `outside` where a process died."""

    states: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    """By subscription, state and key."""
    emits: dict[tuple[str, Label, int], Any] = field(default_factory=dict)
    """By subscription, event and place: (when it leaves, type, key, data)."""
    fates: dict[tuple[str, Label], str] = field(default_factory=dict)
    handlers: dict[tuple[str, Label], str] = field(default_factory=dict)
    tables: dict[str, Counter[str]] = field(default_factory=dict)
    """The rows of the team's own tables, as JSON."""
    outside: dict[str, Any] = field(default_factory=dict)
    did: Counter[str] = field(default_factory=Counter)
    """What handlers did to files and connections."""


@dataclass(frozen=True)
class History:
    """A log, and what comes of it if its events are applied one after the other."""

    log: dict[Label, Entry]
    result: Result

    @property
    def keys(self) -> dict[Label, str]:
        """The keys of the events, in the order of the log."""
        return {label: entry.key for label, entry in self.log.items()}


class Trials:
    """The trials of one service. `ignored` are names of fields that may differ."""

    def __init__(
        self,
        platform: Headrace,
        subscriptions: Collection[str] | None,
        ignored: Collection[str],
        database: str | None = None,
    ) -> None:
        self.platform = platform
        self._ignored = frozenset(ignored)
        self._subscriptions = _named(platform, subscriptions, has_database=database is not None)
        self._tables = Tables(database, platform.settings)
        self._threads = threads()
        self._clock = Clock()
        self._owners: dict[str, Owner] = {}
        self.outside = Outside(_functions(platform, self._subscriptions))
        self.count = 0
        """Runs so far; each has another time and other chance."""

    async def close(self) -> None:
        """End the handlers' thread, and leave everything outside as it was found."""
        self.outside.restore()
        self._threads.stop()
        await self._tables.close()

    async def history(self, events: Sequence[Any]) -> History:
        """Apply the events one after the other, and all that they emit. Raises: what a handler raises."""
        topics, log, result = MemoryTopics(self._clock), dict[Label, Entry](), Result()
        waiting: deque[tuple[NewRecord, Label | None]] = deque()
        async with self._begun(result, days=0):
            for number, event in enumerate(events, 1):
                waiting.append((self._record(event, number), None))
                while waiting:
                    record, cause = waiting.popleft()
                    if len(log) >= MOST_EVENTS:
                        raise ConfigurationError(f"the events lead to more than {MOST_EVENTS:,} others; give fewer.")
                    entry = self._entry(topics.append(record), cause, number)
                    takers = self._takers(entry)
                    if not takers:
                        if cause is None:
                            raise ConfigurationError(f"no handler takes {entry.envelope.type}; leave it out.")
                        continue
                    log[entry.label] = entry
                    for owner in takers:
                        effects = await self._commit(owner, [entry], result)
                        _raise(owner, effects.items)
                        waiting += [(each, entry.label) for _, each in effects.emits]
            await self._finish(result)
        return History(log, result)

    async def play(self, history: History, schedule: Schedule) -> Result:
        """Apply the log as the schedule says."""
        result = Result()
        self.count += 1
        async with self._begun(result, days=self.count):
            for batch in schedule:
                entries = [history.log[label] for label in batch.events]
                await self._apply(entries, batch, result)
            await self._finish(result)
        return result

    async def _apply(self, entries: Sequence[Entry], batch: Batch, result: Result) -> None:
        for _, group in groupby(entries, key=lambda entry: entry.record.topic):
            some = list(group)
            if batch.fate in ("rolled back", "dies before"):
                for owner, mine in self._shares(some):
                    async with self._tables.batch(is_kept=False) as connection:
                        effects = await owner.attempt([entry.record for entry in mine], connection)
                        owner.forget(effects.items)
            if batch.fate == "dies before":
                self._die()
            for owner, mine in self._shares(some):
                await self._commit(owner, mine, result)
            if batch.fate == "dies after":
                self._die()
                for owner, mine in self._shares(some):
                    await self._commit(owner, mine, result)

    async def _commit(self, owner: Owner, entries: Sequence[Entry], result: Result) -> Effects:
        async with self._tables.batch(is_kept=True) as connection:
            effects = await owner.attempt([entry.record for entry in entries], connection)
        name, types = owner.subscription.name, self.platform.registry.types
        for entry, item in zip(entries, effects.items, strict=True):
            if item.outcome in (Outcome.DUPLICATE_ID, Outcome.CONFLICTING_ID):
                continue
            policy = owner.policies.of(item.handler)
            step = step_of(item, name, policy, types, effects.emits, effects.timers)
            place = (name, entry.label)
            result.handlers[place] = f"{name}.{step.handler}"
            error, _ = owner.raised.get(id(item), (None, None))
            told = f": {type(error).__name__}: {error}" if error is not None else ""
            result.fates[place] = step.fate + (told or (f": {step.reason}" if step.reason else ""))
            leaving = [("now", sent.envelope.type, sent.key, _data(sent.record)) for sent in step.sent]
            leaving += [(_when(each), type(each.event).__name__, each.key, _plain(each.event)) for each in step.timers]
            for index, left in enumerate(leaving):
                result.emits[(*place, index)] = self._without_ignored(left)
        owner.commit(effects, entries[0].record.topic)
        return effects

    # The world around

    @asynccontextmanager
    async def _begun(self, result: Result, days: int) -> AsyncIterator[None]:
        self.outside.restore()
        self._owners = {name: self._owner(name, Kept()) for name in self._subscriptions}
        with another_time(self.outside.scopes, days), watching(self._running) as did:
            async with self._tables.trial():
                yield
            result.did = Counter(did)

    async def _finish(self, result: Result) -> None:
        result.outside = self.outside.look()
        result.tables = await self._tables.rows(self._ignored)
        for name, owner in self._owners.items():
            for (state, key), (raw, _) in owner.kept.states.items():
                value = json.loads(raw)
                if state == SAGA_STATE:  # its history has times
                    value["history"] = [entry["what"] for entry in value["history"]]
                result.states[name, state, key] = self._without_ignored(value)
            for place, row in owner.kept.rows.items():
                result.states[name, "row", "/".join(map(str, place))] = self._without_ignored(row)

    def _die(self) -> None:
        """Let the process die: what is committed stays, and nothing else."""
        self.outside.restore()
        self._owners = {name: self._owner(name, owner.kept) for name, owner in self._owners.items()}

    def _owner(self, name: str, kept: Kept) -> Owner:
        subscription = self.platform.registry.subscriptions[name]
        return Owner(self.platform, subscription, kept, self._clock, self._threads)

    def _running(self) -> str | None:
        """Return the handler that is being called."""
        for name, owner in self._owners.items():
            if owner.run is not None and (item := owner.run.current) is not None and item.handler is not None:
                return f"{name}.{item.handler.name}"
        return None

    def _record(self, event: Any, number: int) -> NewRecord:
        if isinstance(event, NewRecord):
            return event
        registry = self.platform.registry
        return written(registry, checked_event(registry, event, _untraced, id=f"event {number}"))

    def _entry(self, record: StoredRecord, cause: Label | None, number: int) -> Entry:
        owner = next((each for each in self._owners.values() if record.topic in each.subscription.topics), None)
        if record.topic in self.platform.registry.decoders and owner is not None:
            key = owner.key_of(record) or ""
            envelope = Envelope(id=f"event {number}", source=f"/topics/{record.topic}", type=record.topic)
        else:
            envelope, key = decode_record(record)[0], (record.key or b"").decode()
        return Entry(f"{envelope.source} {envelope.type} {envelope.id}", record, envelope, key, cause)

    def _takers(self, entry: Entry) -> list[Owner]:
        type_ = None if entry.record.topic in self.platform.registry.decoders else entry.envelope.type
        topic = entry.record.topic
        return [each for each in self._owners.values() if topic in each.subscription.topics and each.takes(type_)]

    def _shares(self, entries: Sequence[Entry]) -> list[tuple[Owner, list[Entry]]]:
        """Return what each subscription takes of some events."""
        shares: dict[str, list[Entry]] = {}
        for entry in entries:
            for owner in self._takers(entry):
                shares.setdefault(owner.subscription.name, []).append(entry)
        return [(self._owners[name], mine) for name, mine in shares.items()]

    def _without_ignored(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._without_ignored(each) for name, each in value.items() if name not in self._ignored}
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._without_ignored, value))
        return value


def first_difference(history: History, result: Result, schedule: Schedule) -> tuple[str, Any, Any, Any] | None:
    """Return (kind, place, what it should be, what it is) of the first thing that differs, or None.

    What is outside is compared if no process died and the order is the log's: then it must have been left as it was.
    """
    right = history.result
    order = {label: index for index, label in enumerate(history.log)}
    kinds: list[tuple[str, dict[Any, Any], dict[Any, Any], Callable[[Any], Any]]] = [
        ("fate", right.fates, result.fates, lambda place: order.get(place[1], 0)),
        ("emit", right.emits, result.emits, lambda place: (order.get(place[1], 0), place[2])),
        ("state", right.states, result.states, str),
        ("table", right.tables, result.tables, str),
    ]
    for kind, first, second, rank in kinds:
        for place in sorted(first.keys() | second.keys(), key=rank):
            if first.get(place) != second.get(place):
                return kind, place, first.get(place), second.get(place)
    flat = [label for batch in schedule for label in batch.events]
    if any(batch.fate.startswith("dies") for batch in schedule) or flat != list(history.log):
        return None
    if (what := next(iter((result.did - right.did).keys()), None)) is not None:
        return "did", what, right.did[what], result.did[what]
    if (name := next(differences(right.outside, result.outside), None)) is not None:
        return "outside", name, right.outside[name], result.outside[name]
    return None


def _named(platform: Headrace, names: Collection[str] | None, *, has_database: bool) -> list[str]:
    subscriptions = platform.registry.subscriptions
    if unknown := sorted(set(names or ()) - subscriptions.keys()):
        raise ConfigurationError(
            f"the service declares no subscription {unknown[0]!r}, but {', '.join(subscriptions)}."
        )
    chosen = [name for name in subscriptions if names is None or name in names]
    for name in chosen:
        for handler in subscriptions[name].handlers.values():
            if handler.signature.wants_transaction and not has_database:
                raise ConfigurationError(
                    f"{name}.{handler.name} takes a Transaction, and SQL needs a real database: write "
                    "assert_exactly_once(..., database=headrace_database), by the fixture of this name."
                )
    return chosen


def _functions(platform: Headrace, names: Collection[str]) -> Iterator[Callable[..., Any]]:
    """Yield every function of the team's that runs for an event."""
    for name in names:
        for handler in platform.registry.subscriptions[name].handlers.values():
            yield handler.function
            yield from (each.function for each in handler.dependencies)
        if (saga := platform.registry.sagas.get(name)) is not None:
            yield from saga.functions
        if (windows := platform.registry.windows.get(name)) is not None:
            yield from windows.functions


def _raise(owner: Owner, items: Sequence[Item]) -> None:
    for item in items:
        error, traceback = owner.raised.get(id(item), (None, None))
        if error is not None and not is_verdict(error):
            raise error.with_traceback(traceback)


def _when(timer: Any) -> str:
    return f"after {timer.after}" if timer.after is not None else f"at {timer.at}"


def _data(record: NewRecord) -> Any:
    return json.loads(decode_record(record)[1])


def _plain(event: Any) -> Any:
    return json.loads(type(event).__dict__["__headrace_event_type__"].encode(event))


def _untraced(topic: str, envelope: Envelope) -> TraceContext:
    return TraceContext(None, None)
