"""The owner's memory of states: what Postgres holds, and what the batch in flight made of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.state.codec import StateType


class Entry:
    """The state of one key. `raw` and `version` are what Postgres holds (b"" and 0: nothing); `value` may be ahead."""

    __slots__ = ("raw", "value", "version")

    def __init__(self, value: Any, raw: bytes, version: int) -> None:
        self.value = value
        self.raw = raw
        self.version = version


class StateCache:
    """The entries of one state in one partition, at most `limit` of them between batches, oldest use first out."""

    def __init__(self, state: StateType, limit: int) -> None:
        self.state = state
        self.entries: dict[str, Entry] = {}
        self.unreadable: dict[str, Exception] = {}
        """Keys whose row does not fit the state's class, with the reason; their events are parked."""
        self._limit = limit

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that must be read from Postgres first, sorted."""
        entries = self.entries
        return sorted({key for key in keys if key not in entries})

    def put(self, key: str, raw: bytes, version: int) -> None:
        """Take in what Postgres holds for a key; version 0 for a key that it does not know.

        What cannot be read (the class has changed since, or wrote what it does not read) is `unreadable`.
        """
        self.unreadable.pop(key, None)
        try:
            value = self.state.decode(raw) if version else self.state.create()
        except Exception as error:
            self.unreadable[key] = error
        else:
            self.entries[key] = Entry(value, raw, version)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the keys, so that they are read again: whatever a batch did to them is undone."""
        for key in keys:
            self.entries.pop(key, None)
            self.unreadable.pop(key, None)

    def trim(self, used: Iterable[str]) -> None:
        """Keep within the limit after a batch; the keys it used count as the newest."""
        if len(self.entries) <= self._limit:
            return
        for key in used:
            if (entry := self.entries.pop(key, None)) is not None:
                self.entries[key] = entry
        surplus = len(self.entries) - self._limit
        for key in list(self.entries)[:surplus]:
            del self.entries[key]
