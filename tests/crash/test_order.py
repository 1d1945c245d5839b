"""Events fail and wait in lanes while workers die, sleep and leave: each key's are applied in order, once."""

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

KEYS = [f"key-{number}" for number in range(60)]
EACH = 60


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("handlers", "seed"), [("sync", 7), ("async", 8)])
async def test_no_event_overtakes_another_of_its_key(
    tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer, topic_name: str, handlers: str, seed: int
) -> None:
    """One worker is paused past its session time-out, one is killed and one leaves, while keys wait in lanes."""
    settings = {
        "HEADRACE_ENGINE_BATCH_RECORDS": "20",
        "HEADRACE_ENGINE_RETRY_FIRST_SECONDS": "0.1",
        "HEADRACE_ENGINE_RETRY_MAX_SECONDS": "0.5",
        "HEADRACE_ENGINE_RETRY_ATTEMPTS": "50",
    }
    async with fleet(
        tmp_path,
        kafka,
        postgres,
        topic_name,
        "tests.apps.order:app",
        count=2,
        partitions=4,
        handlers=handlers,
        **settings,
    ) as order:
        first, second = order.workers
        chance = random.Random(seed)

        await _produce(order, range(15), chance)
        await until(lambda: order.owns(second), "the later sleeper owns a partition", 60)
        second.pause()
        await _produce(order, range(15, 30), chance)
        await until(lambda: order.is_disowned(second), "the sleeper's partitions were taken over", 60)
        second.resume()
        await _produce(order, range(30, 45), chance)
        await first.kill()
        await first.start()
        await _produce(order, range(45, EACH), chance)
        assert await second.leave() == 0
        await second.start()

        await until(lambda: _is_settled(order), "everything is applied", 90)
        rows = await order.pool.fetch("select key, data from headrace.state where state = 'sequence'")
        found = {row["key"]: json.loads(row["data"])["numbers"] for row in rows}
        assert found == {key: list(range(EACH)) for key in KEYS}
        assert await order.pool.fetchval("select count(*) from headrace.dead_letter") == 0
        assert await order.pool.fetchval("select sum(parked) from headrace.ledger") > EACH
        await order.assert_promises_hold()


async def _produce(order: Fleet, numbers: range, chance: random.Random) -> None:
    """Send these events of every key. Returns while some keys wait in lanes."""
    part = [_record(key, number, chance) for number in numbers for key in KEYS]
    await asyncio.to_thread(produce, order.kafka.bootstrap, order.name, iter(part))
    await until(lambda: order.pool.fetchval("select count(*) from headrace.parked"), "keys wait in lanes", 60)


def _record(key: str, number: int, chance: random.Random) -> Wire:
    failures = chance.choice([1, 1, 2, 3]) if chance.random() < 0.03 else 0
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{key}/{number}".encode()),
        ("ce_source", b"/order"),
        ("ce_type", b"numbered"),
        ("content-type", b"application/json"),
    ]
    return Wire(key.encode(), json.dumps({"key": key, "number": number, "failures": failures}).encode(), headers)


async def _is_settled(order: Fleet) -> bool:
    if await order.pool.fetchval("select count(*) from headrace.lane"):
        return False
    return await order.lag("sequences", order.name) == 0
