"""Events per second that one worker applies exactly once, from an append-only topic that is already full."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.progress import Progress

from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.waiting import until
from tests.support.wallets import Expected, produce, wallet_stream

LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Throughput:
    """One run. CPU seconds are the worker's own."""

    events_per_second: float
    bare_per_second: float
    cpu_seconds: float
    flush_p50_ms: float
    flush_p99_ms: float
    batches: int
    is_exact: bool


async def measure_throughput(
    events: int,
    customers: int,
    partitions: int,
    runs: int,
    measure_flush: Callable[[str], Awaitable[tuple[float, float]]],
) -> list[Throughput]:
    """Fill a topic once; per run read it bare, then with a worker on an empty database."""
    kafka, postgres = KafkaServer(is_fast=True), PostgresServer()
    results = []
    with Progress() as progress:
        task = progress.add_task("starting servers", total=2 * runs + 2)
        await kafka.start()
        await postgres.start()
        try:
            progress.update(task, description="filling the topic", advance=1)
            await kafka.create_topic("wallets", partitions)
            expected = Expected()
            stream = wallet_stream(expected, events, customers=customers, duplicates=0.0, malformed=0.0, credits=0.95)
            await asyncio.to_thread(lambda: produce(kafka.bootstrap, "wallets", stream))
            progress.advance(task)
            for number in range(1, runs + 1):
                progress.update(task, description=f"run {number}: bare aiokafka")
                bare = await read_bare(kafka.bootstrap, partitions, events)
                progress.update(task, description=f"run {number}: worker", advance=1)
                async with postgres.database() as url:
                    flush = await measure_flush(url)
                    results.append(await run_worker(kafka, url, events, partitions, expected, bare, flush))
                progress.advance(task)
        finally:
            await postgres.stop()
            await kafka.stop()
    return results


async def read_bare(bootstrap: str, partitions: int, events: int) -> float:
    """Return the records per second of a loop that only reads."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False)
    await consumer.start()
    try:
        assignment = [TopicPartition("wallets", number) for number in range(partitions)]
        consumer.assign(assignment)
        await consumer.seek_to_beginning(*assignment)
        read, started = 0, perf_counter()
        while read < events:
            fetched = await consumer.getmany(timeout_ms=1000)
            read += sum(len(records) for records in fetched.values())
        return read / (perf_counter() - started)
    finally:
        await consumer.stop()


async def run_worker(
    kafka: KafkaServer,
    url: str,
    events: int,
    partitions: int,
    expected: Expected,
    bare: float,
    flush: tuple[float, float],
) -> Throughput:
    """Start one worker, wait until the topic is applied, compare every wallet with the sequential result."""
    environment = os.environ | {
        "HEADRACE_LOG": kafka.url,
        "HEADRACE_DATABASE": url,
        "HEADRACE_PARTITIONS": str(partitions),
        "HEADRACE_MANAGEMENT_PORT": "0",
        "HEADRACE_LOG_LEVEL": "WARNING",
        "HEADRACE_SUBSCRIPTIONS": "wallets",
    }
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace", "run", "shop.service:app", "--role", "worker", env=environment
    )
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await until(lambda: _begun(worker, connection), "the worker's first batch", 60)
            first, started = await applied(connection), perf_counter()
            cpu_before = cpu_seconds(worker.pid)
            await until(lambda: _done(connection, events), "all events applied", LIMIT_SECONDS)
            elapsed, cpu = perf_counter() - started, cpu_seconds(worker.pid) - cpu_before
        rows = await connection.fetch("select key, data from headrace.state")
        wallets = {row["key"]: json.loads(row["data"]) for row in rows}
        found = {key: (wallet["balance"], wallet["applied"]) for key, wallet in wallets.items()}
        is_exact = await applied(connection) == events and found == {
            k: (w.balance, w.applied) for k, w in expected.wallets.items()
        }
        batches = await connection.fetchval("select count(*) from headrace.ledger")
        return Throughput((events - first) / elapsed, bare, cpu * events / (events - first), *flush, batches, is_exact)
    finally:
        await connection.close()
        if worker.returncode is None:
            worker.terminate()
            await worker.wait()


async def _begun(worker: asyncio.subprocess.Process, connection: asyncpg.Connection) -> bool:
    if worker.returncode is not None:
        raise SystemExit(f"the worker ended with exit code {worker.returncode}; its words are above")
    return await applied(connection) > 0


async def _done(connection: asyncpg.Connection, events: int) -> bool:
    return await applied(connection) >= events


async def applied(connection: asyncpg.Connection) -> int:
    """Return the records that are behind the claims."""
    return int(await connection.fetchval("select coalesce(sum(next_offset), 0) from headrace.claim"))


def cpu_seconds(pid: int) -> float:
    """Return user and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
