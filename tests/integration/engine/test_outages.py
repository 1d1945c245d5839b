"""An outage of what a handler needs is no fault of its events: they wait, and no attempt is used up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from headrace import Event, Headrace
from headrace.engine import breaker
from headrace.errors import TransportError
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, Position
from headrace.runtime import Runtime
from tests.support.platform import (
    client,
    fetch,
    has_pages,
    holdings,
    notebook,
    noted,
    publish,
    record,
    sample,
    settings_for,
    spread,
    until_settled,
    value,
    watched,
)
from tests.support.waiting import until

AT_ONCE: dict[str, Any] = {"retry_first_seconds": 0.001, "retry_max_seconds": 0.001}
"""Lets a lane be due as soon as it waits."""

PAGES = [f"page-{number}" for number in range(30)]


class Bank:
    """What the handler needs: it is away, or there, and some pages are never served."""

    def __init__(self) -> None:
        self.is_away = True
        self.calls = 0
        self.never: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, event: Any) -> None:
        with self._lock:
            self.calls += 1
        if self.is_away or event.page in self.never:
            raise RuntimeError("the bank does not answer")


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "FIRST_PROBE_SECONDS", 0.02)
    monkeypatch.setattr(breaker, "LONGEST_PROBE_SECONDS", 0.05)


async def test_outage_parks_little_and_uses_up_no_attempt(database_url: str, topic_name: str) -> None:
    """With one attempt for each event none becomes a dead letter; afterwards all are applied in order."""
    bank = Bank()
    settings = settings_for(database_url, partitions=2, retry_attempts=1, outage_keys=5)
    platform = notebook(settings, topic_name, bank)
    async with watched(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish(runtime, *spread(topic_name, PAGES, 3))
        await until(lambda: sample(runtime, "handler_outage", handler="note") == 1, "the metric tells of the outage")
        await until(lambda: _is_told(http), "every process tells of it")
        calls = bank.calls
        await until(lambda: bank.calls > calls + 3, "single events are tried")
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 0
        assert await value(runtime, "select coalesce(max(attempts), 0) from headrace.lane") == 0
        bank.is_away = False
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {page: [1, 2, 3] for page in PAGES})
        await until(lambda: sample(runtime, "handler_outage", handler="note") == 0, "the metric tells of the end")
        await until(lambda: _is_over(runtime), "the database tells of the end")


async def test_poison_does_not_keep_the_breaker_open(database_url: str, topic_name: str) -> None:
    """The next probe is another event."""
    bank = Bank()
    platform = notebook(settings_for(database_url, partitions=1, retry_attempts=2), topic_name, bank)
    async with watched(platform, MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, PAGES, 1))
        await until(lambda: sample(runtime, "handler_outage", handler="note") == 1, "the breaker is open")
        bank.never = set(PAGES[:10])
        bank.is_away = False
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {page: [1] for page in PAGES[10:]})
        assert await value(runtime, "select count(*) from headrace.dead_letter") == 10


async def test_lanes_are_tried_though_the_log_has_more(database_url: str, topic_name: str) -> None:
    """What waits behind a key's failed event tells nothing about the outage: only its lane does."""
    bank = Bank()
    settings = settings_for(database_url, partitions=1, outage_keys=1, **AT_ONCE)
    async with watched(notebook(settings, topic_name, bank), MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["page"], 400))
        await until(lambda: bank.calls > 4, "single events are tried")
        assert await value(runtime, "select count(*) from headrace.parked") < 200
        bank.is_away = False
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"page": [*range(1, 401)]})


async def test_outage_parks_no_more_than_a_partition_may(database_url: str, topic_name: str) -> None:
    bank = Bank()
    settings = settings_for(database_url, partitions=1, outage_keys=1, parked_events=3, **AT_ONCE)
    async with watched(notebook(settings, topic_name, bank), MemoryLog()) as runtime:
        await publish(runtime, *spread(topic_name, ["page"], 40))
        await until(lambda: sample(runtime, "lane_full_partitions") == 1, "the partition is full")
        calls = bank.calls
        await until(lambda: bank.calls > calls + 3, "what is parked is tried")
        assert await value(runtime, "select count(*) from headrace.parked") == 3
        bank.is_away = False
        await until_settled(runtime, "notes")
        assert await has_pages(runtime, {"page": [*range(1, 41)]})


class Closed(MemoryLog):
    """A log that takes nothing of one topic while it is closed."""

    def __init__(self, topic: str) -> None:
        super().__init__()
        self.topic, self.is_closed, self.refused = topic, True, 0

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        if self.is_closed and any(record.topic == self.topic for record in records):
            self.refused += 1
            raise TransportError("it is closed.")
        return await super().publish(records)


async def test_outage_lifts_no_limit_of_what_other_handlers_emit(database_url: str, topic_name: str) -> None:
    """Their events are tried meanwhile, and tell nothing."""
    bank, log = Bank(), Closed(f"{topic_name}-told")
    platform = Headrace("notebook", settings_for(database_url, partitions=1, emits_pending=5))

    class Paid(Event, type="paid", topic=topic_name, key="page"):
        page: str

    class Noted(Event, type="noted", topic=topic_name, key="page"):
        page: str

    class Told(Event, type="told", topic=log.topic, key="page"):
        page: str

    notes = platform.subscription("notes")
    platform.declare(Told)

    @notes.on(Paid, outage=RuntimeError)
    def pay(event: Paid) -> None:
        bank(event)

    @notes.on(Noted)
    def tell(event: Noted) -> Told:
        return Told(page=event.page)

    async with watched(platform, log) as runtime:
        await publish(runtime, record(topic_name, "paid", {"page": "a"}, key="a"))
        await until(lambda: sample(runtime, "handler_outage") == 1, "the breaker is open")
        await publish(runtime, *(noted(topic_name, page, 1) for page in PAGES))
        await until(lambda: log.refused > 4, "what was emitted does not leave")
        assert sum(holding.relay.pending for holding in holdings(runtime, "notes")) <= 6
        bank.is_away = log.is_closed = False
        await until_settled(runtime, "notes")


async def _is_told(http: Any) -> bool:
    (outage,) = (await http.get("/subscriptions/notes")).json()["outages"] or [None]
    return outage is not None and outage["handler"] == "note" and "does not answer" in outage["error"]


async def _is_over(runtime: Runtime) -> bool:
    return await fetch(runtime, "select * from headrace.outage") == []
