"""The owner's memory of states: what Postgres holds, and what the batch in flight made of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from headrace.state.codec import StateType


class StoredState(NamedTuple):
    """What Postgres holds for a key: JSON and its version; b"" and 0 for a key that it does not know.

    A state that has expired is b"" as well, with the version of the row that is still there.
    """

    key: str
    raw: bytes
    version: int
    class_version: int = 1
    """That of the class that has written it."""
    ends_at: float | None = None
    """When it expires, as `time.monotonic()` tells; None: never."""


class Entry:
    """The state of one key. `value` may be ahead of what Postgres holds, which is `raw` in version `version`.

    `raw` is the JSON that `encode` makes of the stored value, not Postgres' own text of it: as long as `encode(value)`
    gives the same bytes, there is nothing to write. b"" and 0 stand for a key that Postgres does not know.
    """

    __slots__ = ("raw", "value", "version")

    def __init__(self, value: Any, raw: bytes, version: int) -> None:
        self.value = value
        self.raw = raw
        self.version = version


class StateCache:
    """The entries of one state in one partition, at most `limit` between batches; the least used leave first."""

    def __init__(self, state: StateType, limit: int) -> None:
        self.state = state
        self.entries: dict[str, Entry] = {}
        self.unreadable: dict[str, Exception] = {}
        """Keys whose row does not fit the state's class, with the reason; their events are parked."""
        self._limit = limit
        self._ends_at: dict[str, float] = {}
        """When states expire, by key, as `time.monotonic()` tells: not later than Postgres says."""

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that must be read from Postgres first, sorted."""
        entries = self.entries
        if self._ends_at:
            keys = list(keys)
            now = time.monotonic()
            self.forget([key for key in keys if self._ends_at.get(key, now) < now])
        return sorted(set(keys).difference(entries))

    def fill(self, rows: Iterable[StoredState]) -> None:
        """Take in what Postgres holds, as `store.read` returned it.

        Threads: may run in any thread, as long as nothing else uses these keys meanwhile. It is pure computation, about
        25 microseconds for a Pydantic state of 1.6 kB, so that many rows are better decoded off the event loop.
        """
        for row in rows:
            self.put(*row)

    def put(
        self, key: str, raw: bytes, version: int, class_version: int | None = None, ends_at: float | None = None
    ) -> None:
        """Take in what Postgres holds for a key; version 0 for a key that it does not know.

        What an older version of the class has written is written anew by the batch that reads it.

        A row that cannot be read (the class has changed since) makes the key `unreadable`. Raises: MemoryError.
        """
        self.unreadable.pop(key, None)
        try:
            value, written = self.state.load(raw, class_version) if raw else (self.state.create(), b"")
        except MemoryError:
            raise
        except Exception as error:
            self.unreadable[key] = error
        else:
            self.entries[key] = Entry(value, written, version)
            if ends_at is not None:
                self._ends_at[key] = ends_at

    def forget(self, keys: Collection[str]) -> None:
        """Drop the keys and whatever a batch did to them; they are read again when they are needed."""
        for key in keys:
            self.entries.pop(key, None)
            self.unreadable.pop(key, None)
        if self._ends_at:
            for key in keys:
                self._ends_at.pop(key, None)

    def ends_at(self, key: str) -> float | None:
        """Return when the state of a key expires, as `time.monotonic()` tells; None: never, or it is not known here."""
        return self._ends_at.get(key)

    def wrote(self, keys: Iterable[str], at: float) -> None:
        """States were written, not earlier than `at`: from then on they live as long as their class says."""
        ttl = self.state.keeping.ttl_seconds
        if ttl is not None:
            self._ends_at.update((key, at + ttl) for key in keys if key in self.entries)

    def trim(self, used: Iterable[str]) -> None:
        """Keep within the limit after a batch; the keys that it used count as the newest."""
        if len(self.entries) <= self._limit:
            return
        for key in used:
            if (entry := self.entries.pop(key, None)) is not None:
                self.entries[key] = entry
        surplus = len(self.entries) - self._limit
        for key in list(self.entries)[:surplus]:
            del self.entries[key]
            self._ends_at.pop(key, None)
