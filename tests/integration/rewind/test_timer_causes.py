"""A rewind takes back the timers that the remade keys have set, and no others."""

from __future__ import annotations

import json

from headrace import Emit, Event, Headrace, State
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.rewind.plan import Target
from tests.integration.rewind.support import Counts, Sold, go_back
from tests.support.auditing import assert_promises_hold
from tests.support.platform import fetch, publish, running, settings_for, states, until_settled


class Remind(Event, type="remind", topic="reminders", key="sku"):
    sku: str


def sold_at(shop: str, sku: str, number: int) -> NewRecord:
    """Return a sale whose id its source alone makes unique."""
    headers = {"specversion": "1.0", "id": "1", "source": shop, "type": "sold"}
    packed = [(f"ce_{name}", value.encode()) for name, value in headers.items()]
    data = json.dumps({"sku": sku, "number": number}).encode()
    return NewRecord("sales", sku.encode(), data, [*packed, ("content-type", b"application/json")])


async def test_a_timer_of_another_source_with_one_id_stays(database_url: str) -> None:
    platform = Headrace("shop", settings_for(database_url, partitions=1))
    platform.declare(Remind)

    @platform.subscription("sales").on(Sold)
    def note(event: Sold, kept: State[Counts], emit: Emit) -> None:
        kept.numbers.append(event.number)
        if event.sku != "a" or not is_mended[0]:
            emit(Remind(sku=event.sku), after=3_600)

    is_mended = [False]
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, sold_at("/one", "b", 1), sold_at("/two", "a", 2))
        await until_settled(runtime, "sales")
        is_mended[0] = True
        await go_back(runtime, database_url, target=Target(offset=1, partition=0))
        await until_settled(runtime, "sales")
        assert await states(runtime, "sales", "counts") == {"a": {"numbers": [2]}, "b": {"numbers": [1]}}
        waiting = await fetch(runtime, "select convert_from(key, 'utf8') from headrace.timer")
        assert [tuple(row) for row in waiting] == [("b",)]
    await assert_promises_hold(database_url)
