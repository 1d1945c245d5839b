"""One run: a contender as a process of its own, from its first commit until the topic is applied."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, TypeVar

import asyncpg
from confluent_kafka import Consumer, TopicPartition

from bench.contenders import Contender, Store
from bench.flush import Flush, measure_flush
from bench.observer import NOTHING, Cost, Observer
from bench.processes import busy_seconds, cpu_seconds, peak_bytes
from bench.servers import ALERTS, Servers, Topic
from tests.support.waiting import until

Answer = TypeVar("Answer")
Prepare = Callable[[str], Awaitable[None]]
"""Gets the address of the database."""

ROOT = Path(__file__).parents[1]
START_SECONDS, RUN_SECONDS, STOP_SECONDS, EMIT_SECONDS = 120, 300, 20, 10
SHORTEST_POLL, LONGEST_POLL = 0.01, 0.25
"""Seconds. The end is waited for by looking seldom at first, and often when it is near: looking costs Postgres time."""


class Cpu(NamedTuple):
    """Processor seconds, user and system."""

    worker: float
    postgres: float
    broker: float

    @classmethod
    def so_far(cls, worker: int | None, servers: Servers) -> Cpu:
        """Return what each has used since it started; 0 for a server that somebody else started."""
        return cls(*map(cpu_seconds, (worker, servers.postgres.pid, servers.kafka.pid)))

    def since(self, before: Cpu) -> Cpu:
        """Return what was used in between."""
        return Cpu(*(new - old for new, old in zip(self, before, strict=True)))


@dataclass(frozen=True)
class Run:
    """One run's figures. A run that is not exact is no result."""

    contender: str
    events: int
    seconds: float
    cpu: Cpu
    peak_bytes: int
    cost: Cost
    flush: Flush
    fault: str
    """What is wrong with what it has done; empty if it is exact."""
    others_seconds: float = 0.0
    """What all other processes of the machine had of its cores meanwhile."""

    @property
    def events_per_second(self) -> float:
        """The rate."""
        return self.events / self.seconds

    @property
    def worker_microseconds(self) -> float:
        """Processor time of the contender per event."""
        return self.cpu.worker / self.events * 1e6

    @property
    def events_per_commit(self) -> float:
        """Events of a transaction, or a few more: the observer's own are counted as well."""
        return self.events / max(1, self.cost.commits)


async def measure(servers: Servers, contender: Contender, topic: Topic, prepare: Prepare | None = None) -> Run:
    """Run the contender once on an empty database, or on what `prepare` makes of it.

    Raises: SystemExit with its last words, if it ends by itself.
    """
    async with servers.database() as url:
        if prepare is not None:
            await prepare(url)
        flush = await measure_flush(url)
        if contender.store is Store.NONE:
            return await _measured_by_itself(servers, contender, topic, url, flush)
        return await _observed(servers, contender, topic, url, flush)


async def _observed(servers: Servers, contender: Contender, topic: Topic, url: str, flush: Flush) -> Run:
    alerts = await asyncio.to_thread(_end_offset, servers.kafka.bootstrap, ALERTS)
    connection = await asyncpg.connect(url)
    observer = Observer(connection, contender)
    async with process(servers, contender, topic, url) as worker:
        await until(lambda: unless_ended(worker, observer.has_begun), f"{contender.label} has begun", START_SECONDS)
        cost, cpu = await observer.cost(), Cpu.so_far(worker.pid, servers)
        first, started, busy = await observer.applied(), perf_counter(), busy_seconds()
        await until_applied(worker, observer, first, topic.events)
        seconds = perf_counter() - started
        used, peak = Cpu.so_far(worker.pid, servers).since(cpu), peak_bytes(worker.pid)
        others = max(0.0, busy_seconds() - busy - sum(used))
        written = (await observer.cost()).since(cost)
        fault = await observer.fault(topic.expected)
        if not fault and contender.store is Store.HEADRACE:
            fault = await _fault_of_alerts(servers, topic, alerts)
    await connection.close()
    return Run(contender.name, topic.events - first, seconds, used, peak, written, flush, fault, others)


async def until_applied(worker: asyncio.subprocess.Process, observer: Observer, first: int, events: int) -> None:
    """Return when all events are applied; `first` were when this was called. Raises: SystemExit, TimeoutError."""
    started = perf_counter()
    async with asyncio.timeout(RUN_SECONDS):
        while True:
            applied = await unless_ended(worker, observer.applied)
            if applied >= events:
                return
            elapsed = perf_counter() - started
            left = (events - applied) * elapsed / (applied - first) if applied > first else LONGEST_POLL
            await asyncio.sleep(min(LONGEST_POLL, max(SHORTEST_POLL, left / 4)))


async def _measured_by_itself(servers: Servers, contender: Contender, topic: Topic, url: str, flush: Flush) -> Run:
    before = Cpu.so_far(None, servers)
    async with process(servers, contender, topic, url) as worker, asyncio.timeout(RUN_SECONDS):
        assert worker.stdout is not None
        told = json.loads(await worker.stdout.readline() or "null")
        if told is None:
            raise SystemExit(f"{contender.label} ended without a figure; its words are above")
    cpu = Cpu.so_far(None, servers).since(before)._replace(worker=told["cpu_seconds"])
    return Run(contender.name, told["events"], told["seconds"], cpu, 0, NOTHING, flush, "")


@asynccontextmanager
async def process(
    servers: Servers, contender: Contender, topic: Topic, url: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the contender, and end it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "OTEL_"))}
    environment |= {
        "PYTHONPATH": f"{ROOT / 'app'}:{ROOT}",
        "KAFKA": servers.kafka.bootstrap,
        "DATABASE": url,
        "TOPIC": topic.name,
        "GROUP": secrets.token_hex(4),  # committed offsets of an earlier run are another group's
        "EVENTS": str(topic.events),
        "CUSTOMERS": str(topic.customers),
        "PARTITIONS": str(topic.partitions),
        "HEADRACE_LOG": servers.kafka.url,
        "HEADRACE_DATABASE": url,
        "HEADRACE_MANAGEMENT_PORT": "0",
        "HEADRACE_LOG_LEVEL": "WARNING",
        **servers.tracing,
        **contender.environment,
    }
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        worker = await asyncio.create_subprocess_exec(
            *contender.command, env=environment, cwd=folder, stdout=asyncio.subprocess.PIPE
        )
        try:
            yield worker
        finally:
            await _end(worker)


async def _end(worker: asyncio.subprocess.Process) -> None:
    """End it politely, so that nobody waits for the session of a dead member; or else not."""
    if worker.returncode is None:
        worker.terminate()
        try:
            await asyncio.wait_for(worker.wait(), STOP_SECONDS)
        except TimeoutError:
            worker.kill()
    await worker.wait()


async def unless_ended(worker: asyncio.subprocess.Process, ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return the answer. Raises: SystemExit if the contender has ended by itself."""
    if worker.returncode is not None:
        raise SystemExit(f"a contender ended with exit code {worker.returncode}; its words are above")
    return await ask()


async def _fault_of_alerts(servers: Servers, topic: Topic, before: int) -> str:
    """Return what is wrong with the emitted alerts: each is in the log, and once."""
    wanted = topic.emits

    async def emitted() -> int:
        return await asyncio.to_thread(_end_offset, servers.kafka.bootstrap, ALERTS) - before

    async def arrived() -> bool:
        return await emitted() >= wanted

    with contextlib.suppress(TimeoutError):
        await until(arrived, "the alerts are in the log", EMIT_SECONDS)
    found = await emitted()
    return "" if found == wanted else f"{found} alerts are in the log, not {wanted}"


def _end_offset(bootstrap: str, topic: str) -> int:
    """Return how many records the topic has had; 0 if there is none of that name."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench"})
    try:
        found = consumer.list_topics(timeout=10).topics.get(topic)
        numbers = found.partitions if found is not None else ()
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in numbers)
    finally:
        consumer.close()
