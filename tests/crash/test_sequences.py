"""Events come out of order while workers are killed, paused and asked to leave: each key's are applied in sequence."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, fleet
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.waiting import until
from tests.support.wallets import Wire, produce

KEYS = [f"key-{number}" for number in range(40)]
EACH = 60
LATE = 0.1
"""The part of the events that comes much later than the ones behind them."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("handlers", "seed"), [("sync", 3), ("async", 4)])
async def test_held_events_outlive_their_owners(
    tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer, topic_name: str, handlers: str, seed: int
) -> None:
    """While keys wait for events that are late, one worker is killed, one paused past its session and one leaves."""
    async with fleet(
        tmp_path,
        kafka,
        postgres,
        topic_name,
        "tests.apps.sequenced:app",
        count=2,
        partitions=4,
        handlers=handlers,
        HEADRACE_ENGINE_BATCH_RECORDS="20",
    ) as order:
        first, second = order.workers
        chance = random.Random(seed)
        late = {(key, number) for key in KEYS for number in range(1, EACH + 1) if chance.random() < LATE}
        await _produce(order, range(1, 21), late, chance)
        await until(lambda: order.owns(second), "the later sleeper owns a partition", 60)
        second.pause()
        await until(lambda: order.is_disowned(second), "the sleeper's partitions were taken over", 60)
        second.resume()
        await _produce(order, range(21, 41), late, chance)
        await first.kill()
        await first.start()
        await _produce(order, range(41, EACH + 1), late, chance)
        assert await second.leave() == 0
        await second.start()
        await until(lambda: order.pool.fetchval("select count(*) from headrace.parked"), "events are held", 60)
        missing = [_record(*place) for place in sorted(late, key=lambda place: chance.random())]
        await asyncio.to_thread(produce, order.kafka.bootstrap, order.name, iter(missing))

        await until(lambda: _is_settled(order), "everything is applied", 90)
        assert await _numbers(order, "sequence") == {key: list(range(1, EACH + 1)) for key in KEYS}
        for key, numbers in (await _numbers(order, "newest")).items():
            assert numbers == sorted(set(numbers)), f"{key}: a stale event was applied"
            assert numbers[-1] == EACH or (key, EACH) in late
        assert await order.pool.fetchval("select count(*) from headrace.dead_letter") == 0
        await order.assert_promises_hold()


async def _produce(order: Fleet, numbers: range, late: set[tuple[str, int]], chance: random.Random) -> None:
    """Send these events of every key in a wrong order, but those that are late."""
    places = [(key, number) for number in numbers for key in KEYS if (key, number) not in late]
    places.sort(key=lambda place: place[1] + 4 * chance.random())
    part = [_record(*place) for place in places]
    await asyncio.to_thread(produce, order.kafka.bootstrap, order.name, iter(part))
    await until(lambda: order.pool.fetchval("select count(*) from headrace.parked"), "events are held", 60)


def _record(key: str, number: int) -> Wire:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{key}/{number}".encode()),
        ("ce_source", b"/sequenced"),
        ("ce_type", b"numbered"),
        ("ce_sequence", str(number).encode()),
        ("content-type", b"application/json"),
    ]
    return Wire(key.encode(), json.dumps({"key": key, "number": number}).encode(), headers)


async def _numbers(order: Fleet, state: str) -> dict[str, list[int]]:
    rows = await order.pool.fetch("select key, data from headrace.state where state = $1", state)
    return {row["key"]: json.loads(row["data"])["numbers"] for row in rows}


async def _is_settled(order: Fleet) -> bool:
    if await order.pool.fetchval("select count(*) from headrace.lane"):
        return False
    return await order.lag("sequences", order.name) == 0 and await order.lag("newest", order.name) == 0
