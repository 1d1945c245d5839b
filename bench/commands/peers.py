"""Headrace beside what a user would pick instead, in one run on a real Kafka and a real Postgres."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.comparison import Comparison, interleave
from bench.contenders import ALL, LATENCY_HIGH, LATENCY_LOW, QUICK, Contender, chosen
from bench.counts import Counted, count_all
from bench.latency import Latency, measure_latency, prepare_latency
from bench.measure import Run
from bench.results import FOLDER, environment, write_results
from bench.servers import Servers, Topic, servers
from bench.tables import count_rows, flush_line, latency_rows, ratio_rows, terminal, throughput_rows

PARTS = ("throughput", "counts", "latency")
LATENCY_CELLS = ((LATENCY_LOW, 100, 11.0), (LATENCY_HIGH, 2_000, 10.0))
"""(contenders, events a second, seconds)"""

console = Console(width=160)
Tell = Callable[[str], None]


class Found(NamedTuple):
    """All that a sitting has measured."""

    facts: dict[str, Any]
    runs: list[Run]
    counted: list[Counted]
    latencies: list[Latency]


def main(words: Sequence[str]) -> None:
    """Print the figures and keep them; exit code 1 if a run was not exact."""
    arguments = _arguments(words)
    contenders = chosen(arguments.only, QUICK if arguments.quick else ALL)
    found = asyncio.run(_run(arguments, contenders))
    comparison = Comparison(found.runs)
    _print(comparison, found, arguments)
    faults = comparison.faults + [f"{each.contender}: {each.fault}" for each in found.latencies if each.fault]
    if faults:
        raise SystemExit("\n".join(["not exact, so no result:", *faults]))
    if arguments.output is not None:
        write_results(arguments.output, comparison, found.counted, found.latencies, found.facts)
        console.print(f"results: {arguments.output}")


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="the fast contenders with fewer events, in less than 90 s")
    add("--events", type=int, help="wallet events in the topic (default: 600000, quick: 300000)")
    add("--customers", type=int, default=10_000, help="distinct keys (default: 10000)")
    add("--partitions", type=int, default=6, help="partitions of the topic (default: 6)")
    add("--rounds", type=int, help="runs of each fast contender, interleaved (default: 3, quick: 2)")
    add("--only", default="", help=f"contenders, separated by commas, of {', '.join(each.name for each in ALL)}")
    add(
        "--records",
        choices=("own", "binary"),
        default="own",
        help="who wrote the topic: Headrace itself (default), or another client in binary mode",
    )
    add(
        "--traces",
        choices=("on", "off"),
        default="on",
        help="whether events carry a trace context and Headrace exports its spans (default: on)",
    )
    add("--part", choices=("all", *PARTS), default="all", help="what to measure (default: all)")
    add("--output", type=Path, help="where results are kept (default: bench/results, quick: nowhere)")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.part = "throughput"
    elif arguments.output is None and not arguments.only and arguments.part == "all":
        arguments.output = FOLDER
    arguments.events = arguments.events or (300_000 if arguments.quick else 600_000)
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 3)
    return arguments


async def _run(arguments: argparse.Namespace, contenders: Sequence[Contender]) -> Found:
    parts = PARTS if arguments.part == "all" else (arguments.part,)
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("starting the servers")

        def tell(text: str) -> None:
            progress.update(task, description=text)

        async with servers(arguments.records, is_traced=arguments.traces == "on") as running:
            shown = ("events", "customers", "partitions", "rounds", "records", "traces")
            facts = await environment(running, {name: getattr(arguments, name) for name in shown})
            found = Found(facts, [], [], [])
            if "throughput" in parts:
                tell("filling the topics")
                topics = await _topics(running, arguments, contenders)
                found.runs.extend(await interleave(running, contenders, topics, arguments.rounds, tell))
            if "counts" in parts:
                tell("counting statements")
                counted = await count_all(running, contenders, arguments.partitions, arguments.customers)
                found.counted.extend(counted)
            if "latency" in parts:
                found.latencies.extend(await _latencies(running, arguments.partitions, contenders, tell))
    return found


async def _topics(
    running: Servers, arguments: argparse.Namespace, contenders: Sequence[Contender]
) -> dict[int | None, Topic]:
    """Return a topic for each number of events; the whole one is `wallets`, as the example service has it."""
    topics = {}
    for most in {contender.most_events for contender in contenders}:
        events = arguments.events if most is None else min(most, arguments.events)
        name = "wallets" if most is None else f"wallets-{most}"
        topics[most] = await running.topic(name, arguments.partitions, events, arguments.customers)
    return topics


async def _latencies(running: Servers, partitions: int, contenders: Sequence[Contender], tell: Tell) -> list[Latency]:
    await prepare_latency(running, partitions)
    latencies = []
    for members, rate, seconds in LATENCY_CELLS:
        for contender in members:
            if contender in contenders:
                tell(f"latency at {rate:,} events/s: {contender.label}")
                latencies.append(await measure_latency(running, contender, partitions, rate, seconds))
    return latencies


def _print(comparison: Comparison, found: Found, arguments: argparse.Namespace) -> None:
    title = f"{arguments.events:,} wallet events, {arguments.customers:,} keys, {arguments.partitions} partitions, "
    if found.runs:
        console.print(terminal(throughput_rows(comparison), title + "one worker; medians"))
        console.print(terminal(ratio_rows(comparison), "ratios of events/s"))
    if found.counted:
        console.print(terminal(count_rows(found.counted), "how often it talks to Postgres"))
    if found.latencies:
        console.print(terminal(latency_rows(found.latencies), "from an event's time to its commit, open loop"))
    console.print(flush_line([run.flush for run in found.runs] + [each.flush for each in found.latencies]))
