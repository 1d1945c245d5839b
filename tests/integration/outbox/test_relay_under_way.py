"""What happens while the relay is at work: a partition comes back, a slot is wanted by another, a session ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from headrace import Headrace, sql
from headrace.database.pool import Connection
from headrace.errors import TransportError
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord, Position, TopicPartition
from headrace.outbox import moving, relay
from headrace.outbox.rows import SLOTS, NewRow, slot_of, write
from tests.support.orders import Placed, begin_beside, books, order_service
from tests.support.platform import running, settings_for
from tests.support.waiting import until

PARTITIONS = 3
FIRST = next(name for name in (f"c{number}" for number in range(999)) if slot_of(name.encode()) == 0)
"""A customer of the slot that is let go of first."""


class Gated(MemoryLog):
    """A log that is away, or keeps its answers back, as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.refusals = 0
        self.calls: list[int] = []
        self.open = asyncio.Event()

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        if self.is_away:
            self.refusals += 1
            raise TransportError("no leader.")
        self.calls.append(len(records))
        await self.open.wait()
        return await super().publish(records)


class Looking:
    """The relay's session, which tells when it looks at a page that is not the first."""

    def __init__(self, connection: Any, tell: Callable[[], None]) -> None:
        self._connection = connection
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetch(self, query: str, *arguments: Any) -> Any:
        rows = await self._connection.fetch(query, *arguments)
        if query == sql.outbox.LOOK_BEHIND and any(arguments[2]):
            self._tell()
        return rows


async def emit(platform: Headrace, customer: str, *numbers: int) -> None:
    async with platform.transaction() as tx:
        for number in numbers:
            tx.emit(Placed(customer=customer, number=number))


async def test_partition_that_comes_back_amid_a_look_keeps_its_order(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events of its first page are not sent in this look, so those of the later pages are not either."""
    monkeypatch.setattr(relay, "PASS_ROWS", 10)
    monkeypatch.setattr(relay, "LOOK_ROWS", 10)
    platform, log = order_service(settings_for(database_url, partitions=PARTITIONS)), Gated()
    log.open.set()
    log.is_away, has_come_back = True, asyncio.Event()
    async with running(platform, log) as runtime:
        outbox = runtime.outbox
        assert outbox is not None
        way = outbox._ways.to(TopicPartition("orders", partition_for(FIRST.encode(), PARTITIONS)))

        def come_back() -> None:
            has_come_back.set()
            log.is_away, way._resumes_at = False, 0.0

        await until(lambda: len(outbox.owned) == SLOTS, "it has all slots")
        outbox._connection = Looking(outbox._connection, come_back)  # type: ignore[assignment]
        await emit(platform, FIRST, *range(40))
        await until(has_come_back.is_set, "it looks at a later page")

        async def have_arrived() -> bool:
            return len((await books(runtime)).get(FIRST, [])) == 40

        await until(have_arrived, "all have arrived")
        assert await books(runtime) == {FIRST: list(range(40))}
        assert log.refusals >= 1


async def test_timer_is_not_lost_between_its_table_and_the_outbox(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay fails when it has taken the timer and has not written its event."""
    failures: list[int] = []

    async def write_or_fail(connection: Connection, service: str, rows: Sequence[NewRow]) -> set[int]:
        if not failures:
            failures.append(len(rows))
            raise ConnectionError("the session is lost.")
        return await write(connection, service, rows)

    monkeypatch.setattr(moving, "write", write_or_fail)
    platform, log = order_service(settings_for(database_url)), Gated()
    log.open.set()
    async with running(platform, log) as runtime:
        async with platform.transaction() as tx:
            tx.emit(Placed(customer=FIRST, number=1), after=0)

        async def has_arrived() -> bool:
            return await books(runtime) == {FIRST: [1]}

        await until(has_arrived, "it has arrived")
        assert failures == [1]


async def test_slot_stays_while_its_events_are_being_published(database_url: str) -> None:
    """Another process joins and takes its share meanwhile; the event is published once."""
    log = Gated()
    first = order_service(settings_for(database_url))
    async with running(first, log) as runtime:
        one = runtime.outbox
        assert one is not None
        await until(lambda: len(one.owned) == SLOTS, "the first one has all slots")
        await emit(first, FIRST, 1)
        await until(lambda: log.calls == [1], "it is being published")
        _, other = await begin_beside(settings_for(database_url), log)
        two = other.outbox
        assert two is not None
        await until(lambda: (len(one.owned), len(two.owned)) == (SLOTS // 2, SLOTS // 2), "each has half of them")
        assert 0 in one.owned - two.owned
        log.open.set()

        async def has_arrived() -> bool:
            return await books(runtime) == {FIRST: [1]}

        await until(has_arrived, "it has arrived")
        assert log.calls == [1]
        await other.stop()
