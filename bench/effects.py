"""`python -m bench.effects`: calls to the outside that take 200 ms, many at once, in order per key."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import defaultdict
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.processes import cpu_seconds
from headrace import Event, Headrace, Step
from headrace.log.memory import MemoryLog
from tests.support.platform import publish, record, running, settings_for
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

CALL_SECONDS = 0.2


class Asked(Event, type="asked", topic="asked", key="key"):
    """An event as small as they come."""

    key: str
    number: int


class Outside:
    """What is called: it takes its time, and notes in which order it was asked for each key."""

    def __init__(self) -> None:
        self.asked: defaultdict[str, list[int]] = defaultdict(list)
        self.first_at = self.last_at = 0.0
        self.under_way = self.most = 0

    async def call(self, event: Asked) -> int:
        """Answer after a while."""
        self.first_at = self.first_at or time.perf_counter()
        self.asked[event.key].append(event.number)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(CALL_SECONDS)
        self.under_way -= 1
        self.last_at = time.perf_counter()
        return event.number


async def measure(events: int, keys: int, concurrency: int, *, has_step: bool) -> list[tuple[str, str]]:
    """Return the figures, by their names. Raises: SystemExit (a call is missing, doubled or overtaken)."""
    postgres, outside = PostgresServer(None), Outside()
    await postgres.start()
    try:
        async with postgres.database() as url:
            platform = Headrace("bench", settings_for(url, partitions=4))

            @platform.subscription("asking").effect(Asked, concurrency=concurrency)
            async def ask(event: Asked, step: Step) -> None:
                if has_step:
                    await step("call", outside.call, event)
                else:
                    await outside.call(event)

            async with running(platform, MemoryLog()) as runtime:
                assert runtime.pool is not None
                before = time.process_time(), cpu_seconds(postgres.pid)
                await publish(runtime, *(_asked(number, keys) for number in range(events)))
                await until(lambda: sum(map(len, outside.asked.values())) == events, "every call has begun", 600)
                await until(lambda: _is_empty(runtime.pool), "every call is done", 60)
                spent = time.process_time() - before[0], cpu_seconds(postgres.pid) - before[1]
    finally:
        await postgres.stop()
    expected = {f"key-{key}": list(range(key, events, keys)) for key in range(min(keys, events))}
    if outside.asked != expected:
        raise SystemExit("a call is missing, doubled or overtaken")
    rate, bound = events / (outside.last_at - outside.first_at), min(concurrency, keys) / CALL_SECONDS
    return [
        ("calls/s", f"{rate:,.0f}"),
        ("the bound: calls at once divided by the time of one", f"{bound:,.0f}"),
        ("of the bound", f"{rate / bound:.0%}"),
        ("the most calls at once", f"{outside.most:,}"),
        ("µs of processor for a call: this process + Postgres", " + ".join(f"{s / events * 1e6:,.0f}" for s in spent)),
    ]


async def _is_empty(pool: Any) -> bool:
    return int(await pool.fetchval("select count(*) from headrace.effect")) == 0


def _asked(number: int, keys: int) -> Any:
    key = f"key-{number % keys}"
    return record("asked", "asked", {"key": key, "number": number}, key=key, id=str(number))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.effects", description=__doc__)
    parser.add_argument("--events", type=int, default=50_000, help="calls (default: 50000)")
    parser.add_argument("--keys", type=int, default=5_000, help="different keys (default: 5000)")
    parser.add_argument("--concurrency", type=int, default=1_000, help="calls at once (default: 1000)")
    parser.add_argument("--step", action="store_true", help="remember the answer of each call")
    arguments = parser.parse_args()
    title = f"{arguments.events:,} calls of {CALL_SECONDS * 1_000:.0f} ms, {arguments.keys:,} keys, one process"
    table = Table("figure", "value", title=title)
    figures = measure(arguments.events, arguments.keys, arguments.concurrency, has_step=arguments.step)
    for row in asyncio.run(figures):
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
