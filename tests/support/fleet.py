"""Workers of one service that share the partitions of a topic on Kafka, to be killed, paused and asked to leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.support.auditing import assert_clean
from tests.support.kafka import KafkaServer
from tests.support.lag import lag
from tests.support.postgres import PostgresServer
from tests.support.service import Service

SETTINGS = {
    "HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS": "6",
    "HEADRACE_KAFKA_HEARTBEAT_SECONDS": "0.5",
    "HEADRACE_DATABASE_IDLE_IN_TRANSACTION_SECONDS": "5",
    "HEADRACE_ENGINE_BATCH_SECONDS": "10",
}
"""Short waits for a worker that is gone."""


@dataclass(frozen=True)
class Fleet:
    """The workers, and what an outsider sees of them. `name` is the service's name and that of its topic."""

    name: str
    workers: list[Service]
    pool: asyncpg.Pool
    kafka: KafkaServer
    partitions: int

    async def owns(self, worker: Service) -> bool:
        """True when the worker holds a claim behind which something was applied."""
        return bool(await self.pool.fetchval(f"{OWNED} and next_offset > 0", f"%/{worker.pid}/%"))

    async def is_disowned(self, worker: Service) -> bool:
        """True when the others hold every claim that the worker had."""
        return not await self.pool.fetchval(OWNED, f"%/{worker.pid}/%")

    async def assert_promises_hold(self) -> None:
        """Audit every subscription; a finding fails the test."""
        async with self.pool.acquire() as connection:
            await assert_clean(connection)

    async def lag(self, subscription: str, topic: str) -> int:
        """Return how many records of the topic are not behind a claim of the subscription."""
        return await lag(self.kafka.bootstrap, self.pool, f"{self.name}.{subscription}", self.partitions, topic)


OWNED = "select count(*) from headrace.claim where owner like $1"


@asynccontextmanager
async def fleet(
    folder: Path,
    kafka: KafkaServer,
    postgres: PostgresServer,
    name: str,
    app: str,
    *,
    count: int,
    partitions: int,
    handlers: str,
    **settings: str,
) -> AsyncIterator[Fleet]:
    """Run `count` workers of the application on a topic and a database of their own; yields when all are ready."""
    await kafka.create_topic(name, partitions)
    async with postgres.database() as url:
        environment = {
            "HEADRACE_LOG": kafka.url,
            "HEADRACE_DATABASE": url,
            "HEADRACE_PARTITIONS": str(partitions),
            "APP_NAME": name,
            "APP_HANDLERS": handlers,
            **SETTINGS,
            **settings,
        }
        workers = [Service(folder, environment, app=app, role="worker") for _ in range(count)]
        pool = await asyncpg.create_pool(url, min_size=1, max_size=2)
        try:
            await asyncio.gather(*(worker.start() for worker in workers))
            yield Fleet(name, workers, pool, kafka, partitions)
        except Exception as error:
            error.add_note(await _report(workers, pool))
            raise
        finally:
            for worker in workers:
                await worker.stop()
            await pool.close()


async def _report(workers: list[Service], pool: asyncpg.Pool) -> str:
    """Return what a person needs to see of a run that failed: claims, sessions and what the workers wrote last."""
    claims = await pool.fetch("select topic, partition, owner, next_offset from headrace.claim order by 1, 2")
    sessions = await pool.fetch(
        "select pid, pg_blocking_pids(pid) as blocked_by, state, wait_event, now() - xact_start as age, query "
        "from pg_stat_activity where datname = current_database()"
    )
    written = [f"worker {worker.pid}:\n{worker.output[-2_000:]}" for worker in workers]
    return "\n".join([*(str(dict(row)) for row in (*claims, *sessions)), *written])
