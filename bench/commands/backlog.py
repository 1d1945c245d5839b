"""Measures the memory of a worker that was stopped while a million events came in, and is started again."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import asyncpg
from rich.console import Console
from rich.progress import Progress

from bench.contenders import PYDANTIC
from bench.measure import RUN_SECONDS, START_SECONDS, process
from bench.observer import Observer
from bench.processes import peak_bytes, resident_bytes
from bench.servers import Topic, servers
from bench.wallets import fill, wallet_events
from tests.support.waiting import until
from tests.support.wallets import Expected

PARTITIONS, WINDOW_IDS = 6, 10_000
BEFORE = 2 * PARTITIONS * WINDOW_IDS
"""Events that come first: every dedupe window is full behind them, and grows no more."""
BYTES_PER_MB = 1e6

console = Console(width=120)


class Memory(NamedTuple):
    """Resident bytes of the worker."""

    before: int
    """When it had applied all there was, before it was stopped."""
    peak: int
    """The most of the second one, from its start to the end of the backlog."""
    after: int
    """When it had applied the backlog."""


def main(words: Sequence[str]) -> None:
    """Print the memory before, at the peak and after; a run that is not exact ends the command."""
    parser = argparse.ArgumentParser(prog="python -m bench backlog", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="that wait for it (default: 1000000)")
    parser.add_argument("--keys", type=int, default=1_000, help="distinct keys (default: 1000)")
    options = parser.parse_args(words)
    with Progress(console=console) as progress:
        found, fault = asyncio.run(_run(options.events, options.keys, progress))
    if fault:
        raise SystemExit(f"not exact, so no result: {fault}")
    shown = (f"{name} {size / BYTES_PER_MB:.0f} MB" for name, size in found._asdict().items())
    console.print(
        f"{options.events:,} events waited: {', '.join(shown)}; peak : before = {found.peak / found.before:.2f}"
    )


async def _run(events: int, keys: int, progress: Progress) -> tuple[Memory, str]:
    window = {"HEADRACE_ENGINE_DEDUPE_WINDOW_IDS": str(WINDOW_IDS)}
    worker_of = dataclasses.replace(PYDANTIC, environment=PYDANTIC.environment | window)
    task = progress.add_task("events applied", total=BEFORE + events)
    async with servers("own", is_traced=False) as running, running.database() as url:
        await running.kafka.create_topic("wallets", PARTITIONS)
        topic = Topic("wallets", PARTITIONS, BEFORE + events, keys, Expected(), 0)
        stream = wallet_events(topic.expected, topic.events, keys, running.form, is_traced=False)
        connection = await asyncpg.connect(url)
        observer = Observer(connection, worker_of)

        async def are_applied(count: int) -> bool:
            applied = await observer.applied()
            progress.update(task, completed=applied)
            return applied >= count

        async def come_in(count: int) -> None:
            await asyncio.to_thread(fill, running.kafka.bootstrap, topic.name, islice(stream, count), running.form)

        await come_in(BEFORE)
        async with process(running, worker_of, topic, url) as worker:
            await until(observer.has_begun, "the worker has begun", START_SECONDS)
            await until(lambda: are_applied(BEFORE), "the first events are applied", RUN_SECONDS)
            before = resident_bytes(worker.pid)
        await come_in(events)
        async with process(running, worker_of, topic, url) as worker:
            await until(lambda: are_applied(topic.events), "the backlog is applied", RUN_SECONDS)
            found = Memory(before, peak_bytes(worker.pid), resident_bytes(worker.pid))
        fault = await observer.fault(topic.expected)
        await connection.close()
    return found, fault
