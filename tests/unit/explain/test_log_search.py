"""The search for an event that waits in the log takes a bounded part of it, and keeps none of what it has seen."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from typing import Any

import pytest

from headrace import Event, Headrace
from headrace.explain import log_search
from headrace.explain.log_search import find_pending
from headrace.explain.search import Asked
from headrace.log.memory import MemoryLog
from headrace.log.ports import Record, TopicPartition
from headrace.settings import Settings
from tests.support.platform import record

PLACE = TopicPartition("pages", 0)
RECORDS = 40
NOTE = "x" * 1_000


class Noted(Event, type="noted", topic="pages", key="page"):
    page: str
    note: str


class Watched:
    """A record of which somebody can be told that it is still kept."""

    def __init__(self, one: Record) -> None:
        for name in ("topic", "partition", "offset", "timestamp", "key", "value", "headers"):
            setattr(self, name, getattr(one, name))


class WatchedLog(MemoryLog):
    """Hands out records one by one, and notes how many of them were kept at once."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: weakref.WeakSet[Any] = weakref.WeakSet()
        self.read = self.most_kept = 0

    async def reader(self, positions: Mapping[TopicPartition, int]) -> Any:
        reader = await super().reader(positions)
        fetch = reader.fetch

        async def watched(max_records: int, max_bytes: int, seconds: float) -> Any:
            found = await fetch(1, max_bytes, seconds)
            watched = {place: [Watched(one) for one in records] for place, records in found.items()}
            self.read += sum(map(len, watched.values()))
            self.kept.update(one for records in watched.values() for one in records)
            self.most_kept = max(self.most_kept, len(self.kept))
            return watched

        reader.fetch = watched  # type: ignore[method-assign,assignment]
        return reader


@pytest.fixture
async def log() -> WatchedLog:
    log = WatchedLog()
    await log.create("pages", 1)
    for number in range(RECORDS):
        await log.publish([record("pages", "noted", {"page": "a", "note": NOTE}, key="a", id=f"{number}")])
    return log


async def search(log: WatchedLog, event_id: str) -> Any:
    platform = Headrace("notebook", Settings(log="memory"))

    @platform.subscription("notes").on(Noted)
    def note(event: Noted) -> None: ...

    subscription = platform.registry.subscriptions["notes"]
    return await find_pending(log, subscription, {PLACE: 0}, Asked(event_id, None, None))


async def test_what_was_seen_is_not_kept(log: WatchedLog) -> None:
    assert await search(log, "unknown") is None
    assert log.read == RECORDS
    assert log.most_kept < 5


async def test_bytes_that_are_searched_are_bounded(log: WatchedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    one = len(json.dumps({"page": "a", "note": NOTE}))
    monkeypatch.setattr(log_search, "MOST_BYTES", 10 * one)
    assert await search(log, "unknown") is None
    assert log.read <= 10
    found = await search(log, "3")
    assert found is not None and found.outcome == "pending" and "with 3 records" in found.detail
