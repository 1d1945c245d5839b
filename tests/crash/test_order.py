"""Events fail and wait in lanes while a worker dies and partitions move: each key's are applied in order, once."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import asyncpg
import pytest

from tests.support.kafka import KafkaServer
from tests.support.lag import lag
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.wallets import Wire, produce

PARTITIONS = 4
KEYS = [f"key-{number}" for number in range(60)]
EACH = 60
SEED = 7


@pytest.mark.timeout(180)
async def test_no_event_overtakes_another_of_its_key(tmp_path: Path, postgres: PostgresServer) -> None:
    """Events fail and wait in lanes while one worker is killed, one leaves and partitions move between them."""
    server = KafkaServer()
    await server.start()
    async with postgres.database() as url:
        settings = {
            "HEADRACE_LOG": server.url,
            "HEADRACE_DATABASE": url,
            "HEADRACE_PARTITIONS": str(PARTITIONS),
            "HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS": "6",
            "HEADRACE_KAFKA_HEARTBEAT_SECONDS": "0.5",
            "HEADRACE_DATABASE_IDLE_IN_TRANSACTION_SECONDS": "5",
            "HEADRACE_ENGINE_BATCH_RECORDS": "20",
            "HEADRACE_ENGINE_RETRY_FIRST_SECONDS": "0.1",
            "HEADRACE_ENGINE_RETRY_MAX_SECONDS": "0.5",
            "HEADRACE_ENGINE_RETRY_ATTEMPTS": "50",
        }
        workers = [Service(tmp_path, settings, app="tests.apps.order:app", role="worker") for _ in range(2)]
        pool = await asyncpg.create_pool(url, min_size=1, max_size=2)
        try:
            await server.create_topic("numbers", PARTITIONS)
            await asyncio.gather(*(worker.start() for worker in workers))
            first, second = workers
            await until(lambda: _owns(pool, first), "the first worker owns a partition", 60)
            chance = random.Random(SEED)
            for start in range(0, EACH, 15):
                part = [_record(key, number, chance) for number in range(start, start + 15) for key in KEYS]
                await asyncio.to_thread(produce, server.bootstrap, "numbers", iter(part))
                await until(lambda: _are_parked(pool), "keys wait in lanes", 60)
                if start == 15:
                    await first.kill()
                    await first.start()
                if start == 30:
                    assert await second.leave() == 0
                    await second.start()

            await until(lambda: _is_settled(pool, server), "everything is applied", 90)
            rows = await pool.fetch("select key, data from headrace.state where state = 'sequence'")
            found = {row["key"]: json.loads(row["data"])["numbers"] for row in rows}
            assert found == {key: list(range(EACH)) for key in KEYS}
            assert await pool.fetchval("select count(*) from headrace.dead_letter") == 0
            assert await pool.fetchval("select sum(parked) from headrace.ledger") > EACH
        finally:
            for worker in workers:
                await worker.stop()
            await pool.close()
            await server.stop()


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


async def _owns(pool: asyncpg.Pool, worker: Service) -> bool:
    return bool(await pool.fetchval("select count(*) from headrace.claim where owner like $1", f"%/{worker.pid}/%"))


async def _are_parked(pool: asyncpg.Pool) -> bool:
    return bool(await pool.fetchval("select count(*) from headrace.parked"))


async def _is_settled(pool: asyncpg.Pool, server: KafkaServer) -> bool:
    if await pool.fetchval("select count(*) from headrace.lane"):
        return False
    return await lag(server.bootstrap, pool, "order.sequences", PARTITIONS, "numbers") == 0
