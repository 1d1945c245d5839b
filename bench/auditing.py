"""What an audit costs beside what it audits: processor time of the service and of Postgres, in one run."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import NamedTuple

import asyncpg
import httpx

from bench.processes import cpu_seconds
from bench.wallets import fill, wallet_events
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.wallets import Expected

APP, TOPIC, PARTITIONS, CUSTOMERS = "shop.service:app", "wallets", 6, 10_000
APPLIED = "select coalesce(sum(applied), 0) from headrace.ledger where subscription = 'shop.wallets'"
APPLY_SECONDS = 300.0


class Costs(NamedTuple):
    """Seconds of processor: to apply the events, and for one audit of them."""

    events: int
    applying: float
    audit: float
    audit_seconds: float
    """How long the audit took."""


async def measure(events: int, audits: int) -> Costs:
    """Apply the events, then audit them some times while nothing else happens; the costs are those of one audit."""
    kafka, postgres = KafkaServer(), PostgresServer()
    await asyncio.gather(kafka.start(), postgres.start())
    try:
        await kafka.create_topic(TOPIC, PARTITIONS)
        await asyncio.to_thread(
            fill, kafka.bootstrap, TOPIC, wallet_events(Expected(), events, CUSTOMERS, "own"), "own"
        )
        async with postgres.database() as url:
            return await _measured(kafka, postgres, url, events, audits)
    finally:
        await postgres.stop()
        await kafka.stop()


async def _measured(kafka: KafkaServer, postgres: PostgresServer, url: str, events: int, audits: int) -> Costs:
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": url}, app=APP)

        def spent() -> float:
            return cpu_seconds(service.pid) + cpu_seconds(postgres.pid)

        pool = await asyncpg.create_pool(url, min_size=1, max_size=1)
        try:
            before = cpu_seconds(postgres.pid)
            await service.start()

            async def is_applied() -> bool:
                return bool(await pool.fetchval(APPLIED) >= events)

            await until(is_applied, "the events are applied", APPLY_SECONDS)
            applying, began_at = spent() - before, asyncio.get_running_loop().time()
            before = spent()
            async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
                for _ in range(audits):
                    answer = await client.post("/subscriptions/wallets/audit")
                    if not answer.json().get("clean"):
                        raise RuntimeError(f"the audit answered {answer.status_code}: {answer.text[:300]}")
            seconds = (asyncio.get_running_loop().time() - began_at) / audits
            return Costs(events, applying, (spent() - before) / audits, seconds)
        finally:
            await service.stop()
            await pool.close()
