"""What survives a crash, in dictionaries instead of in Postgres and a log."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.engine.lanes import Lane
from headrace.log.ports import NewRecord, StoredRecord
from headrace.timers.changes import Change, SetTimer, folded


class Clock:
    """The time of a test: that of the machine, and what it was moved by."""

    def __init__(self) -> None:
        self.moved_seconds = 0.0

    @property
    def now(self) -> float:
        """Unix seconds."""
        return time.time() + self.moved_seconds

    @property
    def datetime(self) -> datetime:
        """The same with a zone."""
        return datetime.now(UTC) + timedelta(seconds=self.moved_seconds)


@dataclass(frozen=True)
class Pending:
    """A timer that is set. `due` is in Unix seconds of the test's clock."""

    due: float
    timer: SetTimer


@dataclass
class Kept:
    """What one subscription has committed."""

    states: dict[tuple[str, str], tuple[bytes, int]] = field(default_factory=dict)
    """(JSON, version) by state and key."""
    ends: dict[tuple[str, str], float] = field(default_factory=dict)
    """When a state expires, in Unix seconds of the test's clock, by state and key."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)
    """Of a projection: the columns of each row by its key, as they go to Postgres."""
    seen: defaultdict[str, list[tuple[list[bytes], list[int]]]] = field(default_factory=lambda: defaultdict(list))
    """By topic, the ids and marks of each batch."""
    lanes: dict[str, Lane] = field(default_factory=dict)
    parked: dict[str, list[tuple[int, StoredRecord]]] = field(default_factory=dict)
    """By key, the events of its lane with their numbers, as they came."""
    parked_ever: int = 0
    """How many events have entered a lane."""
    answers: dict[bytes, dict[str, str]] = field(default_factory=dict)
    """What steps of effects were answered, as JSON, by the event's identity and the step's name."""
    timers: dict[tuple[str, str, str], Pending] = field(default_factory=dict)
    """By type, key and name."""

    def state(self, name: str, key: str, now: float) -> tuple[bytes, int]:
        """Return (JSON, version) of a state: b"" for one that has expired, and 0 for one that never was."""
        raw, version = self.states.get((name, key), (b"", 0))
        return (b"" if self.ends.get((name, key), now + 1) <= now else raw), version

    def change_timers(self, changes: Iterable[Change], now: float) -> None:
        """Cancel and set timers as one transaction does."""
        cancelled, timers = folded(changes)
        for gone in cancelled:
            for type_, key, name in list(self.timers):
                is_named = (type_, key) == (gone.type, gone.key) and gone.name in (None, name)
                if is_named and self.timers[type_, key, name].timer.cron is None:
                    del self.timers[type_, key, name]
        for timer in timers:
            due = timer.due.at.timestamp() if timer.due.at is not None else now + (timer.due.after_seconds or 0.0)
            self.timers[timer.type, timer.key, timer.name] = Pending(due, timer)


class MemoryTopics:
    """The records of a test by topic; their offsets are their places."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: defaultdict[str, list[StoredRecord]] = defaultdict(list)

    def append(self, record: NewRecord) -> StoredRecord:
        """Give the record the next offset of its topic."""
        records = self._records[record.topic]
        stored = StoredRecord(
            topic=record.topic,
            partition=0,
            offset=len(records),
            timestamp=int(self._clock.now * 1_000),
            key=record.key,
            value=record.value,
            headers=tuple(record.headers),
        )
        records.append(stored)
        return stored
