"""How long a partition stands still when one of several workers is restarted politely, as a Deployment does it.

A pod that is deleted is told to stop at the moment at which its replacement is started. So here: the oldest worker gets
SIGTERM, a new one starts, and the next restart begins when every worker that lives has its even share. The ledger says
when each partition was applied.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from confluent_kafka import Producer

from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.wallets import wallet_record

APP, TOPIC, GROUP = "shop.service:app", "wallets", "shop.wallets"
PARTITIONS = 6
CUSTOMERS = 600
TICK_SECONDS = 0.02
QUIET_SECONDS = 3.0
"""Between two restarts, so that none disturbs the next."""
MOVE_SECONDS = 200.0
"""A partition that no worker has after this time is a fault."""

COMMITS = """
select partition, epoch, extract(epoch from committed_at)::float8 as at from headrace.ledger
where subscription = $1 and topic = $2 and applied > 0 order by partition, sequence
"""
OWNERS = "select owner from headrace.claim where subscription = $1 and topic = $2"


class Gap(NamedTuple):
    """The longest time between two commits of a partition during one restart."""

    restart: int
    partition: int
    seconds: float
    has_moved: bool
    """True if another worker made the second one."""


class _Fleet:
    """The workers, and what they stand on."""

    def __init__(self, new_worker: Callable[[], Service], pool: asyncpg.Pool, bootstrap: str) -> None:
        self._new_worker = new_worker
        self.pool = pool
        self.bootstrap = bootstrap
        self.workers: list[Service] = []

    async def start(self, count: int) -> None:
        self.workers = [self._new_worker() for _ in range(count)]
        await asyncio.gather(*(worker.start() for worker in self.workers))
        await until(self._is_even, "every worker has its share", MOVE_SECONDS)

    async def restart_oldest(self) -> tuple[float, float]:
        """Return when it began and ended (Unix seconds)."""
        began, leaving, coming = time.time(), self.workers.pop(0), self._new_worker()
        self.workers.append(coming)
        code, _ = await asyncio.gather(leaving.leave(), coming.start())
        if code != 0:
            raise RuntimeError(f"a worker that was asked to leave ended with {code}:\n{leaving.output[-2_000:]}")
        await until(self._is_even, "every worker that lives has its share", MOVE_SECONDS)
        return began, time.time()

    async def _is_even(self) -> bool:
        counts = {str(worker.pid): 0 for worker in self.workers}
        for (owner,) in await self.pool.fetch(OWNERS, GROUP, TOPIC):
            pid = (owner or "//").split("/")[1]
            if pid not in counts:
                return False
            counts[pid] += 1
        return sum(counts.values()) == PARTITIONS and max(counts.values()) - min(counts.values()) <= 1


async def measure(
    restarts: int, workers: int, events_per_second: float, folder: Path, told: Callable[[], object]
) -> list[Gap]:
    """Return a gap for each partition and restart. What the workers write goes into the folder."""
    async with _fleet(folder) as fleet:
        await fleet.start(workers)
        load, done = asyncio.create_task(_load(fleet.bootstrap, events_per_second)), []
        try:
            for _ in range(restarts):
                await asyncio.sleep(QUIET_SECONDS)
                done.append(await fleet.restart_oldest())
                told()
            await asyncio.sleep(QUIET_SECONDS)
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        return _gaps(await fleet.pool.fetch(COMMITS, GROUP, TOPIC), done)


@asynccontextmanager
async def _fleet(folder: Path) -> AsyncIterator[_Fleet]:
    kafka, postgres = KafkaServer(), PostgresServer()
    made: list[Service] = []
    await asyncio.gather(kafka.start(), postgres.start())
    try:
        await kafka.create_topic(TOPIC, PARTITIONS)
        async with postgres.database() as url:
            settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": url}

            def new_worker() -> Service:
                made.append(Service(folder, settings, app=APP, role="worker"))
                return made[-1]

            pool = await asyncpg.create_pool(url, min_size=1, max_size=2)
            try:
                yield _Fleet(new_worker, pool, kafka.bootstrap)
            finally:
                for worker in made:
                    await worker.stop()
                await pool.close()
    finally:
        await postgres.stop()
        await kafka.stop()


async def _load(bootstrap: str, events_per_second: float) -> None:
    """Produce credits at a steady rate until cancelled."""
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 2})
    randomness, began, sent = random.Random(1), time.monotonic(), 0
    while True:
        while sent < events_per_second * (time.monotonic() - began):
            customer = f"customer-{randomness.randrange(CUSTOMERS)}"
            wire = wallet_record(f"event-{sent}", customer, 1, is_credit=True)
            producer.produce(TOPIC, wire.value, wire.key, headers=list(wire.headers))
            sent += 1
        producer.poll(0)
        await asyncio.sleep(TICK_SECONDS)


def _gaps(rows: Sequence[Any], restarts: Sequence[tuple[float, float]]) -> list[Gap]:
    commits: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for row in rows:
        commits[row["partition"]].append((row["at"], row["epoch"]))
    found = []
    for number, (began, ended) in enumerate(restarts):
        for partition, times in sorted(commits.items()):
            pairs = itertools.pairwise(times)
            within = [(a, b) for a, b in pairs if b[0] >= began and a[0] <= ended + 1]
            (begin, epoch), (end, next_epoch) = max(within, key=lambda pair: pair[1][0] - pair[0][0])
            found.append(Gap(number, partition, end - begin, epoch != next_epoch))
    return found
