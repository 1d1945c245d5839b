"""The relay publishes in order, and never says that the log has an emit before it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from unittest.mock import AsyncMock

import asyncpg
import pytest
import pytest_asyncio

from headrace.database.pool import Connection
from headrace.emits.relay import Relay
from headrace.errors import TransportError
from headrace.handlers.subscription import Subscription
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, Position, TopicPartition
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.tracing import Tracing
from tests.support.waiting import until


class Sluice(MemoryLog):
    """A memory log that takes nothing until it is opened; `asked` counts the publishes, `calls` holds their sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        self.asked = 0
        self.calls: list[list[int]] = []
        self.failures = 0

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append once the sluice is open, unless a failure is still to come."""
        self.asked += 1
        self.calls.append([len(record.value or b"") for record in records])
        await self.opened.wait()
        if self.failures:
            self.failures -= 1
            raise TransportError("not now.")
        return await super().publish(records)

    @property
    def values(self) -> list[bytes | None]:
        """What the log has."""
        return [record.value for record in self._topics["echoes"][0]]


def emit(number: int) -> NewRecord:
    """Return the record of an emit."""
    return NewRecord("echoes", b"a", b"%d" % number, [])


@asynccontextmanager
async def empty_database() -> AsyncIterator[Connection]:
    """Lend a connection that finds nothing: no earlier owner has left an emit."""
    connection = AsyncMock(asyncpg.Connection)
    connection.fetch.return_value = []
    yield connection


@pytest_asyncio.fixture
async def log() -> Sluice:
    made = Sluice()
    await made.create("echoes", 1)
    return made


@pytest_asyncio.fixture
async def relay(log: Sluice) -> AsyncIterator[Relay]:
    partition, subscription = TopicPartition("pages", 0), Subscription("notes", service="notebook")
    metrics, tracing = Metrics(version="1", role="worker"), Tracing()
    made = Relay(log, metrics, tracing, subscription, partition, 2, empty_database)
    await made.publish_unmarked()
    yield made
    await made.stop()


async def test_nothing_is_marked_beyond_an_emit_that_waits(relay: Relay, log: Sluice) -> None:
    """A batch that marks its own emits, or those of one before it, would lose them when its owner dies."""
    assert relay.can_mark_through(3, emits=True) == 2
    assert relay.can_mark_through(3, emits=False) == 3
    relay.push(3, [emit(1)], None)
    relay.push(5, [emit(2)], None)
    for sequence in (5, 6, 7):
        assert relay.can_mark_through(sequence, emits=True) == 2
        assert relay.can_mark_through(sequence, emits=False) == 2
    log.opened.set()
    assert await relay.flush(30)
    assert relay.can_mark_through(7, emits=False) == 7
    assert relay.can_mark_through(7, emits=True) == 6


async def test_emits_leave_in_the_order_of_their_rows(relay: Relay, log: Sluice) -> None:
    """Also those that are pushed while the log is asked to take the first ones."""
    relay.push(3, [emit(1), emit(2)], None)
    await until(lambda: log.asked, "the log is asked")
    relay.push(4, [emit(3)], None)
    assert relay.pending == 3
    log.opened.set()
    assert await relay.flush(30)
    assert log.values == [b"1", b"2", b"3"]
    assert relay.pending == 0


async def test_emits_that_the_log_does_not_take_stay_pending(relay: Relay, log: Sluice) -> None:
    """They are published again, with those that came meanwhile."""
    log.failures = 1
    relay.push(3, [emit(1)], None)
    log.opened.set()
    await until(lambda: not log.failures, "the log has refused")
    assert relay.can_mark_through(4, emits=False) == 2
    relay.push(4, [emit(2)], None)
    assert await relay.flush(30)
    assert log.values == [b"1", b"2"]


async def test_large_emits_leave_in_calls_that_the_log_takes(
    relay: Relay, log: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, and one that is larger than a call alone."""
    monkeypatch.setattr("headrace.emits.relay.CALL_BYTES", 100, raising=False)
    sizes = [60, 30, 30, 250, 1, 99, 2]
    for sequence, records in enumerate((sizes[:3], sizes[3:]), 3):
        relay.push(sequence, [NewRecord("echoes", b"a", bytes(size), []) for size in records], None)
    log.opened.set()
    assert await relay.flush(30)
    assert [len(value or b"") for value in log.values] == sizes
    assert log.calls == [[60, 30], [30], [250], [1, 99], [2]]


async def test_flush_tells_what_is_left_after_its_time(relay: Relay, log: Sluice) -> None:
    assert await relay.flush(0.0)
    relay.push(3, [emit(1)], None)
    assert not await relay.flush(0.0)
    assert relay.oldest_pending_seconds > 0


async def test_abandoned_relay_publishes_no_more(relay: Relay, log: Sluice) -> None:
    """What is pending belongs to the next owner."""
    relay.push(3, [emit(1)], None)
    await until(lambda: log.asked, "the log is asked")
    task = relay.abandon()
    assert task is not None
    log.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log.values == []
