"""`python -m bench.outbox`: how soon an event follows its commit, how many are relayed, and what is left behind."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from headrace import Event, Headrace
from headrace.cloudevents import decode_record
from headrace.database.pool import Pool
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, Position
from tests.support.platform import running, settings_for
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

CALLERS = 16
KEYS = 1_000


class Moved(Event, type="moved", topic="moves", key="thing"):
    """An event as small as they come."""

    thing: str
    number: int


class Timed(MemoryLog):
    """A log that notes when it was given each event; nothing reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, float] = {}

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Note the time, by the event's id."""
        now = time.perf_counter()
        for record in records:
            self.seen[decode_record(record)[0].id] = now
        return await super().publish(records)


async def measure(events: int, backlog: int) -> list[tuple[str, str]]:
    """Return the figures, by their names."""
    postgres = PostgresServer(None)
    await postgres.start()
    try:
        async with postgres.database() as url:
            platform, log = Headrace("bench", settings_for(url, pool_size=CALLERS + 4)), Timed()
            platform.declare(Moved)
            async with running(platform, log, is_waiting=True) as runtime:
                assert runtime.pool is not None
                await runtime.pool.execute("create table thing (name text, number integer)")
                one = await _latency(platform, log, events // 10)
                many, rate = await _throughput(platform, log, events)
                notified = await _commits(runtime.pool, events, notifies=True)
                silent = await _commits(runtime.pool, events, notifies=False)
                drained, kept = await _drain(platform, log, runtime.pool, backlog)
    finally:
        await postgres.stop()
    return [
        ("commit to log, one at a time, p50 / p99 ms", _milliseconds(one)),
        (f"commit to log, {CALLERS} at a time, p50 / p99 ms", _milliseconds(many)),
        (f"transactions/s with one row and one event, {CALLERS} at a time", f"{rate:,.0f}"),
        (f"bare commits/s, {CALLERS} at a time; with NOTIFY inside", f"{silent:,.0f}; {notified:,.0f}"),
        (f"events/s out of a backlog of {backlog:,}", f"{drained:,.0f}"),
        ("the table's size afterwards, indexes included", f"{kept / 2**20:,.1f} MiB"),
    ]


async def _move(platform: Headrace, number: int, committed: dict[str, float]) -> None:
    async with platform.transaction() as tx:
        await tx.connection.execute("insert into thing values ($1, $2)", "a", number)
        event = tx.emit(Moved(thing=f"thing-{number % KEYS}", number=number))
    committed[event] = time.perf_counter()


async def _latency(platform: Headrace, log: Timed, events: int) -> list[float]:
    committed: dict[str, float] = {}
    for number in range(events):
        await _move(platform, number, committed)
        await asyncio.sleep(0.005)
    return await _waits(log, committed)


async def _throughput(platform: Headrace, log: Timed, events: int) -> tuple[list[float], float]:
    committed: dict[str, float] = {}

    async def call(first: int) -> None:
        for number in range(first, events, CALLERS):
            await _move(platform, number, committed)

    started = time.perf_counter()
    await asyncio.gather(*(call(first) for first in range(CALLERS)))
    rate = events / (time.perf_counter() - started)
    return await _waits(log, committed), rate


async def _commits(pool: Pool, events: int, *, notifies: bool) -> float:
    async def call() -> None:
        async with pool.acquire() as connection:
            for number in range(events // CALLERS):
                async with connection.transaction():
                    await connection.execute("insert into thing values ($1, $2)", "a", number)
                    if notifies:
                        await connection.execute("select pg_notify('bench', $1)", str(number % 64))

    started = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(CALLERS)))
    return events / (time.perf_counter() - started)


async def _drain(platform: Headrace, log: Timed, pool: Pool, backlog: int) -> tuple[float, int]:
    started, before = time.perf_counter(), len(log.seen)
    async with platform.transaction() as tx:
        for number in range(backlog):
            tx.emit(Moved(thing=f"thing-{number % KEYS}", number=number))
        started = time.perf_counter()
    await until(lambda: len(log.seen) >= before + backlog, "the backlog is published", 600)
    rate = backlog / (time.perf_counter() - started)
    await pool.execute("vacuum headrace.outbox")
    return rate, int(await pool.fetchval("select pg_total_relation_size('headrace.outbox')"))


async def _waits(log: Timed, committed: dict[str, float]) -> list[float]:
    await until(lambda: committed.keys() <= log.seen.keys(), "every event is published")
    return sorted(log.seen[event] - at for event, at in committed.items())


def _milliseconds(waits: list[float]) -> str:
    return f"{waits[len(waits) // 2] * 1_000:.1f} / {waits[len(waits) * 99 // 100] * 1_000:.1f}"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.outbox", description=__doc__)
    parser.add_argument("--events", type=int, default=5_000, help="transactions (default: 5000)")
    parser.add_argument("--backlog", type=int, default=100_000, help="events that wait (default: 100000)")
    arguments = parser.parse_args()
    table = Table("figure", "value", title=f"the outbox, {KEYS:,} keys, one process, a log that costs nothing")
    for row in asyncio.run(measure(arguments.events, arguments.backlog)):
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
