"""`python -m bench.lanes`: what keys that hang, that fail or are parked cost the healthy ones of their partition.

Each run is a service of one partition in this process, with a real Postgres and a log that costs nothing. Undisturbed
runs alternate with disturbed ones, and the figures are ratios of their medians.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from headrace import Event, Headrace, State
from headrace.engine.pace import Pace
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord
from headrace.log.stored import pack_headers
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.platform import Notes, execute, holdings, noted, publish, running, settings_for
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

TOPIC, KEYS = "pages", 5_000
LONGEST_NOTES = 10
TICK_SECONDS = 0.02
"""Events of the open loop are published so often."""
PARK = """
with made as (
    insert into headrace.lane (subscription, partition, key, attempts, due_at, error)
    select 'notebook.notes', 0, convert_to('parked-' || n, 'UTF8'), 6, now() + n * interval '300 s' / {keys}, 'always'
    from generate_series(1, {keys}) as n returning key
)
insert into headrace.parked (subscription, partition, key, number, topic, "offset", "timestamp", record_key, value,
                             headers, source, event_id, type, reason)
select 'notebook.notes', 0, convert_to('parked-' || n, 'UTF8'), n, 'pages', 0, 0, convert_to('parked-' || n, 'UTF8'),
       convert_to(format('{{"page": "parked-%s", "number": 1}}', n), 'UTF8'), decode('{headers}', 'hex'), '/bench',
       'parked-' || n, 'noted', 'handler_error'
from generate_series(1, {keys}) as n
"""


class Trouble(NamedTuple):
    """What is wrong in a run."""

    name: str
    hanging: float = 0.0
    """The part of the keys whose handler does not return before its time limit."""
    failing: float = 0.0
    """The part of the keys whose handler raises."""
    parked: int = 0
    """Keys that are parked before the run begins, and fail whenever they are tried."""


NONE = Trouble("none")
TROUBLES = {
    "hanging": Trouble("1 key in 1,000 hangs", hanging=0.001),
    "failing": Trouble("1 % of the keys fail", failing=0.01),
    "parked": Trouble("100,000 keys are parked", parked=100_000),
}


class Figures(NamedTuple):
    """Of one run."""

    events_per_second: float
    """While the log is full."""
    p50: float
    p99: float
    """Ages at their commit, in seconds, at a constant rate."""


class BrokenError(Exception):
    """What a broken key raises."""


def _service(settings: Settings, trouble: Trouble, opened: threading.Event, *, is_async: bool) -> Headrace:
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=TOPIC, key="page"):
        page: str
        number: int

    def apply(event: Any, kept: Any) -> None:
        if event.page.startswith(("failing", "parked")):
            raise BrokenError(event.page)
        kept.numbers = [*kept.numbers[-LONGEST_NOTES:], event.number]

    def note(event: Noted, kept: State[Notes]) -> None:
        if event.page.startswith("hanging"):
            opened.wait()
        apply(event, kept)

    async def note_async(event: Noted, kept: State[Notes]) -> None:
        if event.page.startswith("hanging"):
            await asyncio.Event().wait()
        apply(event, kept)

    handler: Callable[..., Any] = note_async if is_async else note
    platform.subscription("notes").on(Noted)(handler)
    return platform


def _pages(trouble: Trouble) -> list[str]:
    hanging, failing = round(KEYS * trouble.hanging), round(KEYS * trouble.failing)
    healthy = KEYS - hanging - failing
    counts = (("page", healthy), ("hanging", hanging), ("failing", failing))
    return [f"{name}-{number}" for name, count in counts for number in range(count)]


def _records(trouble: Trouble, count: int, chance: random.Random) -> list[NewRecord]:
    pages = _pages(trouble)
    return [noted(TOPIC, chance.choice(pages), number) for number in range(count)]


async def measure(postgres: PostgresServer, trouble: Trouble, options: argparse.Namespace, seed: int) -> Figures:
    """Run once: first a full log, then a constant rate."""
    chance, opened, log = random.Random(seed), threading.Event(), MemoryLog()
    async with postgres.database() as url:
        settings = settings_for(url, partitions=1, retry_first_seconds=0.5, retry_max_seconds=300.0)
        platform = _service(settings, trouble, opened, is_async=options.kind == "async")
        async with _parked(platform, log, url, trouble) as runtime:
            try:
                rate = await _throughput(runtime, _records(trouble, options.events, chance))
                ages = await _ages(runtime, trouble, options, chance)
            finally:
                opened.set()
    return Figures(rate, ages[len(ages) // 2], ages[len(ages) * 99 // 100])


@asynccontextmanager
async def _parked(platform: Headrace, log: MemoryLog, url: str, trouble: Trouble) -> AsyncIterator[Runtime]:
    """Run the service, with its lanes."""
    async with running(platform, log) as runtime:
        await publish(runtime, noted(TOPIC, "page-0", 0))
        await until(lambda: _offset(runtime) == 1, "it has begun")
    if trouble.parked:
        headers = pack_headers([(name, value) for name, value in noted(TOPIC, "a", 1, id="parked").headers])
        await execute(url, PARK.format(keys=trouble.parked, headers=headers.hex()))
        await execute(url, "analyze headrace.lane, headrace.parked")
    async with running(platform, log, pace=Pace()) as runtime:
        yield runtime


def _offset(runtime: Runtime) -> int:
    return sum(holding.claim.next_offset for holding in holdings(runtime, "notes"))


async def _throughput(runtime: Runtime, records: list[NewRecord]) -> float:
    first = _offset(runtime)
    started = time.perf_counter()
    await publish(runtime, *records)
    await until(lambda: _offset(runtime) >= first + len(records), "all are applied", 600)
    return len(records) / (time.perf_counter() - started)


async def _ages(runtime: Runtime, trouble: Trouble, options: argparse.Namespace, chance: random.Random) -> list[float]:
    """Publish at a constant rate, and return the age of each event when it is committed, or parked."""
    ages: list[float] = []
    sent: list[tuple[int, float]] = []
    """(offset behind them, when they were to be sent) of what was published at a time."""
    end = _offset(runtime)

    async def observe() -> None:
        while True:
            await asyncio.sleep(0.005)
            at, now = _offset(runtime), time.perf_counter()
            while sent and sent[0][0] <= at:
                ages.append(now - sent.pop(0)[1])

    observer = asyncio.create_task(observe())
    started, each = time.perf_counter(), round(options.rate * TICK_SECONDS)
    ticks = round(options.seconds / TICK_SECONDS)
    batches = [_records(trouble, each, chance) for _ in range(ticks)]
    for tick, records in enumerate(batches):
        due = started + tick * TICK_SECONDS
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        end += len(records)
        sent.append((end, due))
        await publish(runtime, *records)
    await until(lambda: not sent, "all are applied", 120)
    observer.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await observer
    return sorted(ages)


async def compare(trouble: Trouble, options: argparse.Namespace) -> list[str]:
    """Return a row of the table."""
    postgres = PostgresServer(None)
    await postgres.start()
    try:
        runs: dict[Trouble, list[Figures]] = {NONE: [], trouble: []}
        for seed in range(options.runs):
            for each, figures in runs.items():
                figures.append(await measure(postgres, each, options, seed))
    finally:
        await postgres.stop()

    def median(each: Trouble, figure: str) -> float:
        return float(statistics.median([getattr(run, figure) for run in runs[each]]))

    without, with_ = median(NONE, "events_per_second"), median(trouble, "events_per_second")
    ages = [f"{median(trouble, name):.2f} ({median(NONE, name):.2f})" for name in ("p50", "p99")]
    return [trouble.name, f"{without:,.0f}", f"{with_:,.0f}", f"{with_ / without:.2f}", *ages]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.lanes", description=__doc__)
    parser.add_argument("troubles", nargs="*", help="which (default: all)")
    parser.add_argument("--kind", choices=["sync", "async"], default="async", help="the handler's (default: async)")
    parser.add_argument("--events", type=int, default=300_000, help="in the full log (default: 300000)")
    parser.add_argument("--rate", type=int, default=2_000, help="events a second in the open loop (default: 2000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the open loop (default: 20)")
    parser.add_argument("--runs", type=int, default=3, help="with and without trouble (default: 3)")
    options = parser.parse_args()
    table = Table("trouble", "events/s without", "with", "ratio", "age p50 s (without)", "age p99 s (without)")
    for name in options.troubles or TROUBLES:
        table.add_row(*asyncio.run(compare(TROUBLES[name], options)))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
