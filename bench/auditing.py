"""What an audit costs beside what it audits: processor time when nothing else happens, and events during load."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
WINDOW_SECONDS = 1.5
"""Of applying with audits and without, in turn: long beside a batch, short beside what disturbs a machine."""
WARM_RATIO, LAST_RATIO = 0.1, 0.9
"""Shares of the events between which windows are counted: with every partition at work."""


class Costs(NamedTuple):
    """Seconds of processor: to apply the events, and for one audit of them."""

    events: int
    applying: float
    audit: float
    audit_seconds: float
    """How long the audit took."""


class Share(NamedTuple):
    """Microseconds of processor for an event while nothing is audited, and while one audit follows the other.

    Of the processor and not of the clock, since that does not depend on what else the machine does.
    """

    quiet: float
    audited: float
    windows: int
    audits: int
    events_during_audits: int

    @property
    def ratio(self) -> float:
        """What is left of the throughput while one audit follows the other."""
        return self.quiet / self.audited

    @property
    def audit(self) -> float:
        """Seconds of processor for an audit beside the load."""
        return (self.audited - self.quiet) * self.events_during_audits / self.audits / 1e6


class Target(NamedTuple):
    """A service that begins to apply a backlog, and what it runs on."""

    service: Service
    postgres: PostgresServer
    pool: asyncpg.Pool
    events: int

    def spent(self) -> float:
        """Return the seconds of processor that service and Postgres have taken."""
        return cpu_seconds(self.service.pid) + cpu_seconds(self.postgres.pid)

    async def applied(self) -> int:
        """Return the number of events that are applied."""
        return int(await self.pool.fetchval(APPLIED))


async def measure(events: int, audits: int) -> Costs:
    """Apply the events, then audit them some times while nothing else happens; the costs are those of one audit."""
    async with _target(events) as target, _client(target) as client:
        spent_before = cpu_seconds(target.postgres.pid)
        await target.service.start()

        async def is_applied() -> bool:
            return await target.applied() >= events

        await until(is_applied, "the events are applied", APPLY_SECONDS)
        applying, began_at, before = target.spent() - spent_before, time.monotonic(), target.spent()
        for _ in range(audits):
            await _audit(client)
        seconds = (time.monotonic() - began_at) / audits
        return Costs(events, applying, (target.spent() - before) / audits, seconds)


async def measure_under_load(events: int) -> Share:
    """Apply a backlog, in turn with audits one after the other and without, and compare what an event costs."""
    applied, spent, audits, windows = [0, 0], [0.0, 0.0], 0, 0
    async with _target(events) as target, _client(target) as client:
        await target.service.start()

        async def is_warm() -> bool:
            return await target.applied() >= WARM_RATIO * events

        await until(is_warm, "every partition is at work", APPLY_SECONDS)
        for is_audited in itertools.cycle((False, True)):
            before, spent_before = await target.applied(), target.spent()
            done = await _window(client) if is_audited else await asyncio.sleep(WINDOW_SECONDS, 0)
            after = await target.applied()
            if after > LAST_RATIO * events:
                break
            applied[is_audited] += after - before
            spent[is_audited] += target.spent() - spent_before
            audits, windows = audits + done, windows + 1
    if windows < 4:
        raise RuntimeError(f"{events:,} events were applied within {windows} windows: take more events.")
    quiet, audited = (1e6 * seconds / count for seconds, count in zip(spent, applied, strict=True))
    return Share(quiet, audited, windows, audits, applied[True])


async def _window(client: httpx.AsyncClient) -> int:
    """Audit until a window is over, and return how often."""
    ends_at = time.monotonic() + WINDOW_SECONDS
    count = 0
    while time.monotonic() < ends_at:
        await _audit(client)
        count += 1
    return count


@asynccontextmanager
async def _target(events: int) -> AsyncIterator[Target]:
    """Yield a service that is not started yet, with the events in its topic."""
    kafka, postgres = KafkaServer(), PostgresServer()
    await asyncio.gather(kafka.start(), postgres.start())
    try:
        await kafka.create_topic(TOPIC, PARTITIONS)
        wires = wallet_events(Expected(), events, CUSTOMERS, "own")
        await asyncio.to_thread(fill, kafka.bootstrap, TOPIC, wires, "own")
        async with postgres.database() as url, asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
            with tempfile.TemporaryDirectory() as folder:
                service = Service(Path(folder), {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": url}, app=APP)
                try:
                    yield Target(service, postgres, pool, events)
                finally:
                    await service.stop()
    finally:
        await postgres.stop()
        await kafka.stop()


def _client(target: Target) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=target.service.url, timeout=120)


async def _audit(client: httpx.AsyncClient) -> None:
    answer = await client.post("/subscriptions/wallets/audit")
    if not answer.json().get("clean"):
        raise RuntimeError(f"the audit answered {answer.status_code}: {answer.text[:300]}")
