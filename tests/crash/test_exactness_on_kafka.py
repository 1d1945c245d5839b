"""Three workers share six partitions while one is killed, one is a zombie for a while and one leaves."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import asyncpg
import pytest

from tests.support.kafka import KafkaServer
from tests.support.lag import lag
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.wallets import Expected, produce, wallet_stream

RECORDS = 200_000
PARTITIONS = 6
SESSION_SECONDS = 6


@pytest.mark.timeout(300)
async def test_events_are_applied_once_while_workers_die_and_leave(tmp_path: Path, postgres: PostgresServer) -> None:
    """One worker is killed, one is paused past its session time-out, and one leaves: every event is applied once."""
    server = KafkaServer()
    await server.start()
    async with postgres.database() as url:
        settings = {
            "HEADRACE_LOG": server.url,
            "HEADRACE_DATABASE": url,
            "HEADRACE_PARTITIONS": str(PARTITIONS),
            "HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
            "HEADRACE_KAFKA_HEARTBEAT_SECONDS": "1",
            "HEADRACE_DATABASE_IDLE_IN_TRANSACTION_SECONDS": "5",
            "HEADRACE_ENGINE_BATCH_RECORDS": "500",
            "HEADRACE_ENGINE_BATCH_SECONDS": "10",
        }
        workers = [Service(tmp_path, settings, role="worker") for _ in range(3)]
        pool = await asyncpg.create_pool(url, min_size=1, max_size=2)
        try:
            await server.create_topic("wallets", PARTITIONS)
            await asyncio.gather(*(worker.start() for worker in workers))
            expected = Expected()
            producing = asyncio.create_task(asyncio.to_thread(_produce_in_parts, server.bootstrap, expected))
            killed, zombie, leaver = workers

            await until(lambda: _owns(pool, zombie), "the later zombie owns a partition")
            await until(lambda: _applied(pool, 10_000), "10,000 records applied")
            zombie.pause()
            await until(lambda: _applied(pool, 20_000), "20,000 records applied", 60)
            await killed.kill()
            await killed.start()
            await until(lambda: _disowned(pool, zombie), "the zombie's partitions were taken over", 60)
            zombie.resume()
            await until(lambda: _applied(pool, 60_000), "60,000 records applied", 60)
            assert await leaver.leave() == 0
            await producing
            await until(lambda: _applied(pool, RECORDS), "all records applied", 120)
            await until(lambda: _alerts_settled(pool, server), "all alerts applied", 60)

            assert await lag(server.bootstrap, pool, "shop.wallets", PARTITIONS) == 0
            await _compare(pool, expected)
            assert "claim lost" in zombie.output, "the zombie was never fenced: the test did not test it"
            for worker in workers:
                assert "Traceback" not in worker.output
        finally:
            for worker in workers:
                await worker.stop()
            await pool.close()
            await server.stop()


def _produce_in_parts(bootstrap: str, expected: Expected) -> None:
    produce(bootstrap, "wallets", wallet_stream(expected, RECORDS), **{"linger.ms": 50})


async def _compare(pool: asyncpg.Pool, expected: Expected) -> None:
    rows = await pool.fetch("select key, data from headrace.state where subscription = 'shop.wallets'")
    found = {row["key"]: json.loads(row["data"]) for row in rows}
    assert found == {customer: dataclasses.asdict(wallet) for customer, wallet in expected.wallets.items()}
    assert sum(wallet["applied"] for wallet in found.values()) == expected.valid
    assert await pool.fetchval("select count(*) from headrace.dead_letter") == expected.malformed
    alerts = await pool.fetch("select key, data from headrace.state where subscription = 'shop.alerts'")
    assert {row["key"]: json.loads(row["data"])["count"] for row in alerts} == dict(expected.overdrawn)
    gaps = await pool.fetchval(
        "select count(*) from (select first_offset, lag(next_offset) over "
        "(partition by subscription, topic, partition order by sequence) as before "
        "from headrace.ledger where kind = 0) as row where before is not null and before <> first_offset"
    )
    assert gaps == 0


async def _applied(pool: asyncpg.Pool, count: int) -> bool:
    done = await pool.fetchval(
        "select coalesce(sum(next_offset), 0) from headrace.claim where subscription = 'shop.wallets'"
    )
    return int(done) >= count


async def _owns(pool: asyncpg.Pool, worker: Service) -> bool:
    return bool(
        await pool.fetchval(
            "select count(*) from headrace.claim where owner like $1 and next_offset > 0", f"%/{worker.pid}/%"
        )
    )


async def _disowned(pool: asyncpg.Pool, worker: Service) -> bool:
    return not await pool.fetchval("select count(*) from headrace.claim where owner like $1", f"%/{worker.pid}/%")


async def _alerts_settled(pool: asyncpg.Pool, server: KafkaServer) -> bool:
    pending = await pool.fetchval(
        "select count(*) from headrace.ledger join headrace.claim using (subscription, topic, partition) "
        "where emits is not null and ledger.sequence > claim.emitted_through"
    )
    return pending == 0 and await lag(server.bootstrap, pool, "shop.alerts", PARTITIONS) == 0
