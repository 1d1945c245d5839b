"""The timers of then: those that the remade keys had set, and not cancelled, before the place to go back to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.cloudevents import decode_record
from headrace.dead_letters.shown import moment
from headrace.emits.emitter import emit_id, ids_of
from headrace.envelope import Envelope
from headrace.item import Item
from headrace.log.stored import new_record
from headrace.timers.changes import CancelTimers, Change, Due, SetTimer

Named = tuple[str, str, str]
"""Type, key and name of a timer."""

MOST_EMITS = 10_000
"""Emits of one event among which a timer is looked for."""


class TimersOfThen:
    """Compares the timers that wait now with those that waited then. `rows` are those that wait."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._ids: dict[Named, str] = {}
        self._set_by: dict[str, list[tuple[Named, Envelope]]] = {}
        for row in rows:
            envelope, _ = decode_record(new_record(row["topic"], row["key"], row["value"], row["headers"]))
            named = row["type"], row["key"].decode(), row["name"]
            self._ids[named] = envelope.id
            self._set_by.setdefault(envelope.causationid or "", []).append((named, envelope))
        self._theirs: set[Named] = set()
        self._then: dict[Named, SetTimer] = {}

    def met(self, items: Iterable[Item]) -> None:
        """Take note of events of the remade keys: timers that they have set are the keys' own."""
        for item in items:
            for named, timer in self._set_by.get(item.envelope.id, ()):
                if named not in self._theirs and _has_emitted(item, timer):
                    self._theirs.add(named)

    def follow(self, changes: Iterable[tuple[Item, Change]]) -> None:
        """Follow what the handlers of the remade keys did before the place."""
        for item, change in changes:
            if isinstance(change, CancelTimers):
                for named in [each for each in self._then if _is_meant(change, each)]:
                    del self._then[named]
            else:
                named = change.type, change.key, change.name
                self._then[named] = change._replace(due=Due(None, _due_at(change, item)))

    def changes(self) -> list[Change]:
        """Return what makes the timers of now those of then."""
        kept = {named for named in self._theirs if named in self._then and _id(self._then[named]) == self._ids[named]}
        cancelled = [CancelTimers(*named) for named in self._theirs - kept]
        return [*cancelled, *(timer for named, timer in self._then.items() if named not in kept)]


def _has_emitted(item: Item, emitted: Envelope) -> bool:
    """True if the event is the cause: another source may have given its id as well, but no other one makes this id."""
    ids = ids_of(emitted.source)
    return any(emit_id(item.identity, position, ids) == emitted.id for position in range(MOST_EMITS))


def _is_meant(cancelled: CancelTimers, named: Named) -> bool:
    return named[:2] == cancelled[:2] and cancelled.name in (None, named[2])


def _due_at(timer: SetTimer, item: Item) -> datetime:
    """Return when it was due: counted from when the log took in the event that set it."""
    if timer.due.at is not None:
        return timer.due.at
    begun_at = moment(item.record.timestamp) or datetime.now(UTC)  # a time that no calendar has tells nothing
    return begun_at + timedelta(seconds=timer.due.after_seconds or 0.0)


def _id(timer: SetTimer) -> str:
    return decode_record(timer.record)[0].id
