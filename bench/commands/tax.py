"""What exactly once costs: the same services with dedupe and ledger, and without, in turn on the same topic."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from itertools import chain
from statistics import median

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.comparison import Comparison, interleave
from bench.contenders import LABELS, TAX, Contender
from bench.measure import Run
from bench.servers import servers
from bench.tables import Rows, flush_line, terminal, throughput_rows

FEWEST_EVENTS = 1_000
"""Of a batch: with fewer, the tax is that of a statement."""

TITLE = "the tax: the share of each that dedupe and ledger take; of the medians, and the range of the rounds"

console = Console(width=160)


def main(words: Sequence[str]) -> None:
    """Print what the tax is; exit code 1 if a run was not exact, or its batches were small."""
    parser = argparse.ArgumentParser(prog="python -m bench tax", description=__doc__)
    add = parser.add_argument
    add("--events", type=int, default=600_000, help="wallet events in the topic (default: 600000)")
    add("--customers", type=int, default=10_000, help="distinct keys (default: 10000)")
    add("--partitions", type=int, default=6, help="partitions of the topic (default: 6)")
    add("--rounds", type=int, default=5, help="runs of each, interleaved (default: 5)")
    arguments = parser.parse_args(words)
    runs = asyncio.run(_run(arguments))
    comparison = Comparison(runs)
    console.print(terminal(throughput_rows(comparison), "one worker; medians"))
    console.print(terminal(tax_rows(runs), TITLE))
    console.print(flush_line([run.flush for run in runs]))
    faults = comparison.faults + [
        f"{run.contender}: {run.events_per_commit:,.0f} events in a transaction, not {FEWEST_EVENTS:,}"
        for run in runs
        if run.events_per_commit < FEWEST_EVENTS
    ]
    if faults:
        raise SystemExit("\n".join(["no result:", *faults]))


async def _run(arguments: argparse.Namespace) -> list[Run]:
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("starting the servers, filling the topic")
        async with servers("own", is_traced=True) as running:
            topic = await running.topic("wallets", arguments.partitions, arguments.events, arguments.customers)
            contenders = list(chain.from_iterable(TAX))
            return await interleave(
                running,
                contenders,
                {None: topic},
                arguments.rounds,
                lambda text: progress.update(task, description=text),
            )


def tax_rows(runs: Sequence[Run]) -> Rows:
    """Return a row per service: by how much less each figure is without the tax, of the medians over the runs."""
    figures: dict[str, Callable[[Run], float]] = {
        "time of an event": lambda run: 1 / run.events_per_second,
        "processor, worker": lambda run: run.worker_microseconds,
        "processor, worker and Postgres": lambda run: (run.cpu.worker + run.cpu.postgres) / run.events,
    }
    rows = [["service", *figures, "events in a transaction"]]
    for taxed, untaxed in TAX:
        pairs = list(zip(_of(runs, taxed), _of(runs, untaxed), strict=True))
        sizes = [median(run.events_per_commit for run in side) for side in zip(*pairs, strict=True)]
        shares = [_share(pairs, figure) for figure in figures.values()]
        rows.append([LABELS[taxed.name], *shares, " and ".join(f"{size:,.0f}" for size in sizes)])
    return rows


def _of(runs: Sequence[Run], contender: Contender) -> list[Run]:
    return [run for run in runs if run.contender == contender.name]


def _share(pairs: Sequence[tuple[Run, Run]], figure: Callable[[Run], float]) -> str:
    of_rounds = [1 - figure(bare) / figure(full) for full, bare in pairs]
    whole = 1 - median(figure(bare) for _, bare in pairs) / median(figure(full) for full, _ in pairs)
    return f"{whole:.1%} ({min(of_rounds):.1%} to {max(of_rounds):.1%})"
