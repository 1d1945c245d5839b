"""One worker for a settable time: throughput, cost of an event, memory, table sizes, dead tuples every ten seconds.

The topic is kept a bounded number of events ahead of the worker, or gets a fixed number of events a second; the broker
deletes what is read. Processor time tells whether an event has become dearer, also if something else uses the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import asyncpg
import msgspec
from rich.console import Console

from bench.contenders import PYDANTIC
from bench.growth.plots import plot_soak
from bench.measure import RUN_SECONDS, START_SECONDS, Cpu, process
from bench.observer import Observer
from bench.processes import resident_bytes
from bench.results import FOLDER, rounded
from bench.servers import Servers, Topic, servers
from bench.wallets import fill, wallet_events
from tests.support.waiting import until
from tests.support.wallets import Expected, Wire

SAMPLE_SECONDS = 10.0
CHUNK_EVENTS, MOST_AHEAD = 50_000, 400_000
POOL_EVENTS = 500_000
"""These are made, and then sent again and again under other ids: to make an event costs as much as to apply it."""
ID = b'"id":"'
CHUNK_SECONDS = 1.0
KEEP_BYTES = {"retention_bytes": str(256 * 2**20), "segment_bytes": str(32 * 2**20)}
_SIZES = """
select pg_total_relation_size('headrace.state') as state_bytes,
       (select sum(pg_total_relation_size(relid)) from pg_partition_tree('headrace.ledger')) as ledger_bytes,
       (select sum(n_dead_tup) from pg_stat_user_tables where schemaname = 'headrace') as dead_tuples
"""

console = Console(width=140)


def main(words: Sequence[str]) -> None:
    """Print a line per sample; the end compares the last sixth of the time with the first."""
    parser = argparse.ArgumentParser(prog="python -m bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120, help="how long (default: 120)")
    parser.add_argument("--keys", type=int, default=100_000, help="distinct keys (default: 100000)")
    parser.add_argument("--rate", type=float, help="events a second (default: as many as the worker applies)")
    parser.add_argument("--output", type=Path, default=FOLDER, help="where results are kept (default: bench/results)")
    arguments = parser.parse_args(words)
    samples, fault = asyncio.run(_run(arguments.minutes * 60, arguments.keys, arguments.rate))
    if fault:
        raise SystemExit(f"not exact, so no result: {fault}")
    share = max(1, len(samples) // 6)
    for name in ("events_per_second", "worker_microseconds", "postgres_microseconds", "resident_mb"):
        first, last = (median(each[name] for each in part) for part in (samples[:share], samples[-share:]))
        console.print(f"{name}: last sixth : first sixth = {last:,.1f} : {first:,.1f} = {last / first:.3f}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "soak.json").write_text(json.dumps(rounded(samples), indent=1) + "\n")
    plot_soak(samples, arguments.output)


class Feeder:
    """Keeps a topic ahead of its reader; for a thread of its own."""

    def __init__(self, running: Servers, topic: Topic, rate: float | None) -> None:
        self._running, self._topic, self._rate = running, topic, rate
        self._events = _again_and_again(topic.expected, topic.customers, is_traced=running.is_traced)
        self.sent = 0
        self.applied = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        """Send chunks until it is over."""
        size = CHUNK_EVENTS if self._rate is None else max(1, round(self._rate * CHUNK_SECONDS))
        begun = perf_counter()
        while not self.is_over.is_set():
            due = self.sent / self._rate if self._rate else 0.0
            if self.sent - self.applied > MOST_AHEAD or perf_counter() - begun < due:
                self.is_over.wait(0.05)
                continue
            chunk = list(islice(self._events, size))
            fill(self._running.kafka.bootstrap, self._topic.name, chunk, self._running.form)
            self.sent += len(chunk)


class _Data(msgspec.Struct):
    customer: str
    amount: int


class _Event(msgspec.Struct):
    type: str
    data: _Data


def _again_and_again(expected: Expected, customers: int, *, is_traced: bool) -> Iterator[Wire]:
    """Yield a pool of events without end, each time with other ids, and count them in what is expected."""
    events = msgspec.json.Decoder(_Event)
    rows = []
    for key, value, headers in wallet_events(Expected(), POOL_EVENTS, customers, "own", is_traced=is_traced):
        assert value is not None
        event, begin = events.decode(value), value.index(ID) + len(ID)
        credit = event.type == "wallet.credited"
        rows.append((key, value[:begin], value[begin + 8 :], headers, event.data.customer, event.data.amount, credit))
    for number in count():
        mark = b"%08x" % number
        for key, head, tail, headers, customer, amount, is_credit in rows:
            expected.apply(customer, amount, is_credit=is_credit)
            yield Wire(key, b"".join((head, mark, tail)), headers)


async def _run(seconds: float, keys: int, rate: float | None) -> tuple[list[dict[str, Any]], str]:
    async with servers("own", is_traced=True) as running, running.database() as url:
        await running.kafka.create_topic("wallets", 6, **KEEP_BYTES)
        topic = Topic("wallets", 6, 0, keys, Expected(), 0)
        feeder = Feeder(running, topic, rate)
        feeding = asyncio.create_task(asyncio.to_thread(feeder.run))
        connection = await asyncpg.connect(url)
        observer = Observer(connection, PYDANTIC)

        async def is_applied() -> bool:
            return await observer.applied() >= feeder.sent

        async with process(running, PYDANTIC, topic, url) as worker:
            try:
                await until(observer.has_begun, "the worker has begun", START_SECONDS)
                samples = await _sample(running, worker.pid, connection, observer, feeder, feeding, seconds)
            finally:
                feeder.is_over.set()
            await feeding
            await until(is_applied, "all events are applied", RUN_SECONDS)
        fault = await observer.fault(topic.expected)
        await connection.close()
    return samples, fault


async def _sample(
    running: Servers,
    pid: int,
    connection: asyncpg.Connection,
    observer: Observer,
    feeder: Feeder,
    feeding: asyncio.Task[None],
    seconds: float,
) -> list[dict[str, Any]]:
    samples = []
    begun = at = perf_counter()
    sampled = applied = await observer.applied()
    used = Cpu.so_far(pid, running)
    while perf_counter() - begun < seconds:
        if feeding.done():
            feeding.result()  # raises: it ends by itself if it cannot go on
        while perf_counter() - at < SAMPLE_SECONDS:
            await asyncio.sleep(0.25)
            feeder.applied = applied = await observer.applied()
        now = perf_counter()
        sizes = await connection.fetchrow(_SIZES)
        assert sizes is not None
        using, events = Cpu.so_far(pid, running), max(1, applied - sampled)
        sample = {
            "seconds": now - begun,
            "events_per_second": (applied - sampled) / (now - at),
            "worker_microseconds": using.since(used).worker / events * 1e6,
            "postgres_microseconds": using.since(used).postgres / events * 1e6,
            "resident_mb": resident_bytes(pid) / 1e6,
            **{name: int(value or 0) for name, value in sizes.items()},
        }
        console.print("  ".join(f"{name} {value:,.0f}" for name, value in sample.items()))
        samples.append(sample)
        at, sampled, used = now, applied, using
    return samples
