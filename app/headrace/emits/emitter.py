"""Collects what the handlers of a batch emit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from headrace.cloudevents import check_key, declared_key, encode_record
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError, RecordTooLargeError
from headrace.event import EventType, event_type_of
from headrace.item import Item
from headrace.log.ports import NewRecord
from headrace.tables.writes import TableWriter
from headrace.timers.changes import Change, SetTimer, cancelling, due

FRAME_BYTES, HEADER_BYTES = 256, 16
"""More than a record, and each of its headers, takes in the log beside its bytes. An emit that is refused here fails
its handler, which the team can see and mend; the log would refuse it only after the commit."""


Counted = Literal["late", "closed"]
"""An event that is too late for a window, or a window that closes."""


def ids_of(source: str) -> hashlib.blake2b:
    """Return the hash that the ids of a source's emits begin with, which sets them apart from those of others."""
    key = hashlib.blake2b(source.encode(), digest_size=16).digest()
    return hashlib.blake2b(key=key, digest_size=16)


def emit_id(cause: bytes, position: int, ids: hashlib.blake2b) -> str:
    """Return the id of what the handler of an event emits: the same in each run. `cause` is the event's identity."""
    digest = ids.copy()  # takes half as long as to begin one
    digest.update(b"%b%d" % (cause, position))
    return digest.hexdigest()


class Emitter:
    """The `Emit` of one batch: `emit(event)` appends to `emitted`, in the order of the calls."""

    def __init__(self, service: str, subscription: str, types: Mapping[str, EventType], max_bytes: int) -> None:
        self._source = f"/{service}/{subscription}"
        self._ids = ids_of(self._source)
        self._types = types
        self._max_bytes = max_bytes
        self.cause: Item | None = None
        """The item whose handler emits."""
        self.position = 0
        self._causes: dict[int, Item] = {}
        """The items of a batch handler's list, by the id() of their events."""
        self._positions: dict[Item, int] = {}
        self.emitted: list[tuple[Item, NewRecord]] = []
        """(source item, record), ready to be published."""
        self.timers: list[tuple[Item, Change]] = []
        """(source item, timer that is set or cancelled)."""
        self.counted: list[tuple[Item, Counted]] = []
        """(source item, what of windows is counted once the item has committed)."""
        self.table: TableWriter | None = None
        """The rows that the handlers of a projection write, which emit nothing."""
        self.step: Any = None
        """The `Step` of an effect's call."""

    def undo(self) -> None:
        """Take back what the handler of the current item emitted."""
        while self.emitted and self.emitted[-1][0] is self.cause:
            self.emitted.pop()
        while self.timers and self.timers[-1][0] is self.cause:
            self.timers.pop()
        while self.counted and self.counted[-1][0] is self.cause:
            self.counted.pop()
        if self.table is not None:
            self.table.undo(self.cause)

    def begin_list(self, items: Sequence[Item]) -> tuple[int, int]:
        """The handler of a list of events is called; return what `undo_list` goes back to."""
        self.cause = items[-1]
        self._causes = {id(item.event): item for item in items}
        self._positions = {}
        return len(self.emitted), len(self.timers)

    def end_list(self) -> None:
        """The handler of a list has returned."""
        self._causes = {}

    def undo_list(self, before: tuple[int, int]) -> None:
        """Take back what the handler of a list emitted."""
        del self.emitted[before[0] :], self.timers[before[1] :]

    def __call__(
        self,
        event: object,
        *,
        key: str | None = None,
        after: float | timedelta | None = None,
        at: datetime | None = None,
        name: str | None = None,
        cause: object | None = None,
    ) -> None:
        """Emit one event, now or later.

        Raises: ConfigurationError (type not declared, time, name or cause wrong), EventError (key or event too large).
        """
        item = self.cause if cause is None and not self._causes else self._of_list(cause)
        if item is None:
            raise ConfigurationError("emit() was called outside of a handler; emit while the handler runs.")
        event_type = event_type_of(event)
        if event_type is None or event_type.type not in self._types:
            name = type(event).__name__
            if self.table is not None:
                raise ConfigurationError(f"a projection emits nothing; return {name} from another subscription.")
            raise ConfigurationError(
                f"{name} cannot be emitted, since the service does not declare it; write events.declare({name})."
            )
        later = due(after, at, name)
        source = item.envelope
        event_id = emit_id(item.identity, self.position, self._ids)
        self.position += 1
        key = check_key(key or declared_key(event_type, event) or event_id)
        envelope = Envelope(
            id=event_id,
            source=self._source,
            type=event_type.type,
            time=datetime.now(UTC) if later is None else later.time,
            datacontenttype="application/json",
            dataschema=event_type.dataschema,
            partitionkey=key,
            traceparent=source.traceparent,
            tracestate=source.tracestate,
            correlationid=source.correlationid or source.id,
            causationid=source.id,
        )
        record = encode_record(envelope, event_type.encode(event), topic=event_type.topic, key=key)
        size = size_of(record)
        if size > self._max_bytes:
            raise RecordTooLargeError(
                f"the emitted {event_type.type} has {size:,} bytes, the log takes {self._max_bytes:,}; emit less, or "
                "raise HEADRACE_KAFKA_MAX_RECORD_BYTES and the topic's max.message.bytes."
            )
        if later is None:
            self.emitted.append((item, record))
        else:
            self.timers.append((item, SetTimer(event_type.type, key, name or event_id, later, record)))

    def _of_list(self, cause: object | None) -> Item | None:
        """Return the item that an event of a batch handler's list follows from, and count for it."""
        item = self.cause if cause is None else self._causes.get(id(cause))
        if item is None and cause is not None:
            raise ConfigurationError(
                "emit(..., cause=...) names an event of the list that a batch handler was called with; leave it out."
            )
        if item is not None:
            self.position = self._positions.get(item, 0)
            self._positions[item] = self.position + 1
        return item

    def count(self, what: Counted) -> None:
        """Count something that the current item does to its windows."""
        assert self.cause is not None
        self.counted.append((self.cause, what))

    def cancel(self, model: type[object], key: str, name: str | None = None) -> None:
        """Cancel the timer of an event type and key that has this name, or all of them. Nothing happens without one.

        Raises: ConfigurationError (no event type, a wrong name).
        """
        if self.cause is None:
            raise ConfigurationError("emit.cancel() was called outside of a handler; cancel while the handler runs.")
        self.timers.append((self.cause, cancelling(model, key, name, call="emit.cancel")))


def size_of(record: NewRecord) -> int:
    """Return at least the bytes that the record takes in a log: key, value, headers and their frames."""
    size = len(record.key or b"") + len(record.value or b"") + FRAME_BYTES
    for name, value in record.headers:
        size += len(name if name.isascii() else name.encode()) + len(value) + HEADER_BYTES
    return size
