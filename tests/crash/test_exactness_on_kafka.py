"""Three workers share six partitions while one is killed, one is frozen for a while and one leaves."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, fleet
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.wallets import Expected, produce, wallet_stream
from tests.support.web import http_client

RECORDS = 60_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("handlers", "seed"), [("sync", 1), ("async", 2)])
async def test_events_are_applied_once_while_workers_die_and_leave(
    tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer, topic_name: str, handlers: str, seed: int
) -> None:
    """One worker is killed, one is paused past its session time-out, and one leaves: every event is applied once."""
    settings = {"HEADRACE_ENGINE_BATCH_RECORDS": "500"}
    async with fleet(
        tmp_path,
        kafka,
        postgres,
        topic_name,
        "tests.apps.wallets:app",
        count=3,
        partitions=6,
        handlers=handlers,
        **settings,
    ) as shop:
        expected = Expected()
        stream = wallet_stream(expected, RECORDS, seed=seed)
        producing = asyncio.create_task(
            asyncio.to_thread(produce, kafka.bootstrap, shop.name, stream, **{"linger.ms": 50})
        )
        killed, sleeper, leaver = shop.workers

        await until(lambda: shop.owns(sleeper), "the later sleeper owns a partition")
        await until(lambda: _applied(shop, 5_000), "5,000 records applied")
        sleeper.pause()
        await until(lambda: _applied(shop, 10_000), "10,000 records applied", 60)
        await killed.kill()
        await killed.start()
        await until(lambda: shop.is_disowned(sleeper), "the sleeper's partitions were taken over", 60)
        sleeper.resume()
        await until(lambda: _applied(shop, 40_000), "40,000 records applied", 60)
        assert await leaver.leave() == 0
        await producing
        await until(lambda: _applied(shop, RECORDS), "all records applied", 120)
        await until(lambda: _alerts_settled(shop), "all alerts applied", 60)

        assert await shop.lag("wallets", shop.name) == 0
        await _compare(shop, expected)
        assert await _times_taken_for_dead(sleeper) > 0
        assert "claim lost" in sleeper.output, "the sleeper was never fenced: the test did not test it"
        for worker in shop.workers:
            assert "Traceback" not in worker.output


async def _compare(shop: Fleet, expected: Expected) -> None:
    found = await _states(shop, "wallets")
    assert found == {customer: dataclasses.asdict(wallet) for customer, wallet in expected.wallets.items()}
    assert sum(wallet["applied"] for wallet in found.values()) == expected.valid
    assert await shop.pool.fetchval("select count(*) from headrace.dead_letter") == expected.malformed
    alerts = await _states(shop, "alerts")
    assert {customer: alert["count"] for customer, alert in alerts.items()} == dict(expected.overdrawn)
    await shop.assert_promises_hold()


async def _times_taken_for_dead(worker: Service) -> float:
    async with http_client() as client:
        text = (await client.get(f"http://127.0.0.1:{worker.management_port}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("headrace_rebalances_total{") and '"lost"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def _states(shop: Fleet, subscription: str) -> dict[str, dict[str, int]]:
    rows = await shop.pool.fetch(
        "select key, data from headrace.state where subscription = $1", f"{shop.name}.{subscription}"
    )
    return {row["key"]: json.loads(row["data"]) for row in rows}


async def _applied(shop: Fleet, count: int) -> bool:
    done = await shop.pool.fetchval(
        "select coalesce(sum(next_offset), 0) from headrace.claim where subscription = $1", f"{shop.name}.wallets"
    )
    return int(done) >= count


async def _alerts_settled(shop: Fleet) -> bool:
    pending = await shop.pool.fetchval(
        "select count(*) from headrace.ledger join headrace.claim using (subscription, topic, partition) "
        "where emits is not null and ledger.sequence > claim.emitted_through"
    )
    return pending == 0 and await shop.lag("alerts", f"{shop.name}-alerts") == 0
