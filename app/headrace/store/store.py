"""Appends to streams and reads them: `events.store(tx)`, or `events.store()` with transactions of its own."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from headrace import sql
from headrace.aggregates.aggregate import Aggregate, NewEvent
from headrace.backoff import Backoff
from headrace.cloudevents import ParsedEvent, check_key, declared_key
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError, SchemaError, VersionConflictError
from headrace.event import event_type_of
from headrace.outbox.rows import Append
from headrace.publishing.checking import JSON, Trace, check_event, source_of
from headrace.registry import Registry
from headrace.store.stored import Appended, StoredEvent, event_id, stored_event
from headrace.store.transactions import Open, Place
from headrace.telemetry.logging import get_logger
from headrace.telemetry.metrics import OTHER, Metrics

AggregateT = TypeVar("AggregateT", bound=Aggregate[Any])
logger = get_logger("headrace.store")

FIRST_SECONDS, LONGEST_SECONDS = 0.005, 0.2
"""Between two attempts of an `update` that met another writer."""


class EventStore:
    """The streams of one service. Every call works in the transaction that it was made for, or in one of its own."""

    def __init__(
        self,
        registry: Registry,
        open: Open,
        trace: Trace,
        *,
        is_shared: bool,
        metrics: Metrics | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> None:
        self._metrics = metrics
        self._registry = registry
        self._open = open
        self._trace = trace
        self._is_shared = is_shared
        self._correlation_id = correlation_id
        self._causation_id = causation_id

    async def append(
        self, stream: str | type[Aggregate[Any]], key: str, *events: object, expected: int | None
    ) -> Appended:
        """Append the events to the stream that `stream` and `key` name; return its version and the events' ids.

        `expected` is the version that it has to be at: 0 for a new stream, None for any. They are published behind the
        commit, with the stream's key.
        Raises: VersionConflictError, ConfigurationError (not a declared event type), SchemaError, RecordTooLargeError,
        StateUnavailableError.
        """
        new = [self._new_event(event) for event in events]
        async with self._open() as place:
            return await self._append(place, self._name(stream), key, new, expected)

    async def read(
        self,
        stream: str | type[Aggregate[Any]],
        key: str,
        *,
        after: int = 0,
        version: int | None = None,
        at: datetime | None = None,
        limit: int | None = None,
    ) -> list[StoredEvent]:
        """Return the events behind the version `after`, up to a `version`, up to a time, and `limit` of them at most.

        Raises: ConfigurationError (an event that no class fits, a time without a zone), StateUnavailableError.
        """
        async with self._open() as place:
            return await self._read(place, self._name(stream), key, after, version, _checked_time(at), limit)

    async def load(
        self,
        aggregate: type[AggregateT],
        key: str,
        *,
        version: int | None = None,
        at: datetime | None = None,
        lock: bool = False,
    ) -> AggregateT:
        """Return the aggregate of the key as it is, or as it was at a `version` or a time; a new one without events.

        With `lock` nobody else changes it until the transaction ends, so that no conflict comes of it.
        Raises: ConfigurationError (an event that no class fits, `lock` without a transaction), StateUnavailableError.
        """
        name = self._name(aggregate)
        if lock and not self._is_shared:
            raise ConfigurationError("lock=True lasts as long as a transaction; give it: events.store(tx).load(...).")
        async with self._open() as place:
            if lock:
                await place.fetch(sql.stream.LOCK, self._registry.service, name, check_key(key))
            loaded = aggregate(key)
            if aggregate.snapshot_every is not None and at is None:
                await self._restore(place, loaded, version)
            read = await self._read(place, name, key, loaded.version, version, _checked_time(at), None)
            for each in read:
                loaded.replay(each.type, each.event, each.version)
            if self._metrics is not None:
                self._metrics.store_loaded_events.labels(stream=name).observe(len(read))
            return loaded

    async def save(self, aggregate: Aggregate[Any]) -> Appended:
        """Append what the aggregate has emitted, if its stream is still at the version that was loaded.

        Raises: as `append`.
        """
        name, emitted = self._name(type(aggregate)), aggregate.new_events
        async with self._open() as place:
            appended = await self._append(place, name, aggregate.key, emitted, aggregate.version)
            before, aggregate.version = aggregate.version, appended.version
            every = aggregate.snapshot_every
            if every is not None and before // every < aggregate.version // every:
                await self._keep(place, aggregate)
        aggregate.new_events = []
        return appended

    async def update(
        self,
        aggregate: type[AggregateT],
        key: str,
        change: Callable[[AggregateT], Awaitable[object] | object],
        *,
        attempts: int = 1,
    ) -> AggregateT:
        """Load the aggregate, `change` it, save it; return it.

        In your transaction others wait for it. Without one nothing is locked while `change` runs: if another writer was
        faster, all three are done again, up to so many `attempts`.
        Raises: VersionConflictError after the last of them, what `change` raises, and as `load` and `save`.
        """
        if self._is_shared and attempts != 1:
            raise ConfigurationError(
                "attempts= is for events.store() without a transaction: in yours others wait, and none is repeated."
            )
        backoff = Backoff(FIRST_SECONDS, LONGEST_SECONDS, 0.5)
        while True:
            loaded = await self.load(aggregate, key, lock=self._is_shared)
            returned = change(loaded)
            if inspect.isawaitable(returned):
                await returned
            try:
                await self.save(loaded)
            except VersionConflictError:
                attempts -= 1
                if attempts < 1:
                    raise
                await asyncio.sleep(backoff.next_seconds())
                continue
            return loaded

    def _name(self, stream: str | type[Aggregate[Any]]) -> str:
        if isinstance(stream, str):
            return stream
        if self._registry.aggregates.get(stream.stream) is not stream:
            raise ConfigurationError(
                f"the aggregate {stream.__name__} is not declared by this service; write "
                f"events.declare({stream.__name__})."
            )
        return stream.stream

    def _label(self, stream: str) -> str:
        """Return the stream's name in metrics: anybody may write to streams of any name."""
        return stream if stream in self._registry.aggregates else OTHER

    def _new_event(self, event: object) -> NewEvent:
        event_type = event_type_of(event)
        name = type(event).__name__
        if event_type is None or self._registry.types.get(event_type.type) is not event_type:
            raise ConfigurationError(
                f"{name} cannot be appended, since the service does not declare it as an event type; write "
                f"events.declare({name})."
            )
        return NewEvent(event, event_type, event_type.encode(event))

    async def _append(
        self, place: Place, stream: str, key: str, new: Sequence[NewEvent], expected: int | None
    ) -> Appended:
        if not new:
            return Appended(expected or 0, [])
        _check(stream, key, new)
        service, count = self._registry.service, len(new)
        if expected is None:
            rows = await place.fetch(sql.stream.GROW, service, stream, key, count)
        elif expected == 0:
            rows = await place.fetch(sql.stream.OPEN, service, stream, key, count)
        else:
            rows = await place.fetch(sql.stream.ADVANCE, service, stream, key, count, expected)
        if not rows:
            found = await place.fetch(sql.stream.VERSION, service, stream, key)
            if self._metrics is not None:
                self._metrics.store_conflicts_total.labels(stream=self._label(stream)).inc()
            raise VersionConflictError(stream, key, expected or 0, found[0]["version"] if found else 0)
        version, appended_at = rows[0]["version"], rows[0]["changed_at"]
        versions = range(version - count + 1, version + 1)
        envelopes = [
            self._envelope(place.cause, event_id(stream, key, number), each, key, number, appended_at)
            for number, each in zip(versions, new, strict=True)
        ]
        types, trace = self._registry.types, self._trace
        records = [
            check_event(ParsedEvent(envelope, each.data), types, appended_at, trace).record
            for envelope, each in zip(envelopes, new, strict=True)
        ]
        first = envelopes[0]
        await place.fetch(
            sql.stream_event.INSERT, service, stream, key, appended_at, first.correlationid, first.causationid,
            list(versions), [each.event_type.type for each in new], [each.event_type.version for each in new],
            [each.data.decode() for each in new],
        )  # fmt: skip
        await place.publish(records, [Append(stream, number, appended_at) for number in versions])
        if self._metrics is not None:
            self._metrics.store_appended_total.labels(stream=self._label(stream)).inc(count)
        return Appended(version, [each.id for each in envelopes])

    def _envelope(
        self, cause: Envelope | None, id: str, new: NewEvent, key: str, number: int, at: datetime
    ) -> Envelope:
        """Return the CloudEvent that an event of a stream is, as a handler's emits have correlation and causation."""
        return Envelope(
            id=id,
            source=source_of(self._registry.service, new.event_type.type),
            type=new.event_type.type,
            time=at,
            datacontenttype=JSON,
            partitionkey=key,
            sequence=str(number),
            traceparent=cause.traceparent if cause is not None else None,
            tracestate=cause.tracestate if cause is not None else None,
            correlationid=self._correlation_id or (None if cause is None else cause.correlationid or cause.id),
            causationid=self._causation_id or (None if cause is None else cause.id),
        )

    async def _read(
        self,
        place: Place,
        stream: str,
        key: str,
        after: int,
        version: int | None,
        at: datetime | None,
        limit: int | None,
    ) -> list[StoredEvent]:
        if "\x00" in key:
            return []  # Postgres keeps no such text, so that no stream has it
        most = _bounded(version)
        rows = await place.fetch(
            sql.stream_event.READ, self._registry.service, stream, key, _bounded(after), most, at, limit
        )
        return [stored_event(self._registry.types, stream, key, row) for row in rows]

    async def _restore(self, place: Place, aggregate: Aggregate[Any], version: int | None) -> None:
        codec = aggregate.codec
        assert codec is not None
        if "\x00" in aggregate.key:
            return
        most = _bounded(version)
        rows = await place.fetch(
            sql.snapshot.READ, self._registry.service, aggregate.stream, aggregate.key, codec.revision, most
        )
        if rows:
            aggregate.restore(codec.decode(rows[0]["state"].encode()), rows[0]["version"])

    async def _keep(self, place: Place, aggregate: Aggregate[Any]) -> None:
        codec = aggregate.codec
        assert codec is not None
        state = codec.encode(aggregate.state)
        if state is None:
            logger.warning(
                "no snapshot was kept, since the state would not come back equal from its JSON",
                aggregate=type(aggregate).__name__,
                version=aggregate.version,
            )
            return
        await place.fetch(
            sql.snapshot.WRITE,
            self._registry.service, aggregate.stream, aggregate.key, aggregate.version, codec.revision, state,
        )  # fmt: skip


def _bounded(version: int | None) -> int | None:
    """Return the version as Postgres can compare it: no stream has a higher one, and none a lower one than 0."""
    return None if version is None else max(0, min(version, MOST_VERSIONS))


def _check(stream: str, key: str, new: Sequence[NewEvent]) -> None:
    """Refuse what no stream can hold. Raises: SchemaError, ConfigurationError (the name, an event of another key)."""
    if "/" in stream:
        raise ConfigurationError(
            f"the stream {stream!r} cannot have a '/' in its name, since its events would get the ids of another "
            f"stream's; write {stream.replace('/', '.')!r}, or put what is behind the '/' into the key."
        )
    if not key or "\x00" in key:
        raise SchemaError(f"the stream {stream!r}: a key has at least one character, and no NUL.")
    check_key(key)
    for event, event_type, data in new:
        declared = declared_key(event_type, event)
        if declared is not None and declared != key:
            raise ConfigurationError(
                f"{event_type.type}: its key {event_type.key_field!r} is {declared!r}, and the stream's is {key!r}, by "
                "which it would leave; append it to the stream of its key, or declare it without key=."
            )
        if _NUL.search(data):
            raise SchemaError(f"{event_type.type}: a text holds a NUL character, which Postgres cannot keep.")


MOST_VERSIONS = 2**63 - 1
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def _checked_time(at: datetime | None) -> datetime | None:
    if at is not None and at.tzinfo is None:
        raise ConfigurationError(f"at={at.isoformat()} has no time zone; write datetime.now(UTC), for example.")
    return at
