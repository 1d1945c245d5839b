"""`python -m bench`: Headrace beside what a user would pick instead, in one run on a real Kafka and a real Postgres."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.comparison import Comparison, interleave
from bench.contenders import FAST, QUICK, Contender
from bench.servers import servers
from bench.tables import comparison_table, flush_line

console = Console(width=150)


def main() -> None:
    """Print the figures; exit code 1 if a run was not exact."""
    comparison = asyncio.run(_run(_arguments()))
    if comparison.inexact:
        faults = (f"{run.contender}: {run.fault}" for run in comparison.inexact)
        raise SystemExit("\n".join(["not exact, so no result:", *faults]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="the fast contenders with fewer events, in less than 90 s")
    add("--events", type=int, help="wallet events in the topic (default: 600000, quick: 300000)")
    add("--customers", type=int, default=10_000, help="distinct keys (default: 10000)")
    add("--partitions", type=int, default=6, help="partitions of the topic (default: 6)")
    add("--rounds", type=int, help="runs of each contender, interleaved (default: 3, quick: 2)")
    add("--only", default="", help=f"some of the contenders, separated by commas: {_names()}")
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
    arguments = parser.parse_args()
    arguments.events = arguments.events or (300_000 if arguments.quick else 600_000)
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 3)
    return arguments


def _chosen(arguments: argparse.Namespace) -> Sequence[Contender]:
    if not arguments.only:
        return QUICK if arguments.quick else FAST
    names = arguments.only.split(",")
    if unknown := set(names) - {each.name for each in FAST}:
        raise SystemExit(f"--only: there is no {', '.join(sorted(unknown))}; there are {_names()}")
    return [each for each in FAST if each.name in names]


def _names() -> str:
    return ", ".join(each.name for each in FAST)


async def _run(arguments: argparse.Namespace) -> Comparison:
    chosen = _chosen(arguments)
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("starting the servers")
        async with servers(arguments.records, is_traced=arguments.traces == "on") as running:
            progress.update(task, description="filling the topic")
            topic = await running.topic("wallets", arguments.partitions, arguments.events, arguments.customers)
            runs = await interleave(
                running,
                [(contender, topic) for contender in chosen],
                arguments.rounds,
                lambda text: progress.update(task, description=text),
            )
    comparison = Comparison(runs)
    labels = {contender.name: contender.label for contender in chosen}
    title = f"{topic.events:,} wallet events, {topic.customers:,} keys, {topic.partitions} partitions, one worker"
    console.print(comparison_table(comparison, labels, title))
    if comparison.harmonic_bound is not None:
        console.print(f"harmonic bound of fetching and upserting alone: {comparison.harmonic_bound:,.0f} events/s")
    console.print(flush_line(runs))
    return comparison


if __name__ == "__main__":
    main()
