"""`python -m bench`: one worker on a real Kafka and a real Postgres, beside a bare aiokafka loop in the same run."""

from __future__ import annotations

import argparse
import asyncio

from rich.console import Console
from rich.table import Table

from bench.flush import measure_flush
from bench.throughput import Throughput, measure_throughput


def main() -> None:
    """Print the figures; exit code 1 where the run was not exact."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--events", type=int, default=600_000, help="wallet events in the topic (default: 600000)")
    parser.add_argument("--customers", type=int, default=10_000, help="distinct keys (default: 10000)")
    parser.add_argument("--partitions", type=int, default=6, help="partitions of the topic (default: 6)")
    parser.add_argument("--runs", type=int, default=3, help="measured runs (default: 3)")
    arguments = parser.parse_args()
    runs = asyncio.run(
        measure_throughput(arguments.events, arguments.customers, arguments.partitions, arguments.runs, measure_flush)
    )
    Console(width=120).print(_table(runs, arguments))
    if not all(run.is_exact for run in runs):
        raise SystemExit("a run was not exact: its figures mean nothing")


def _table(runs: list[Throughput], arguments: argparse.Namespace) -> Table:
    table = Table(
        title=f"{arguments.events:,} wallet events, {arguments.customers:,} keys, "
        f"{arguments.partitions} partitions, one worker"
    )
    columns = ("run", "events/s", "bare aiokafka/s", "ratio", "µs CPU/event", "flush p50/p99 ms", "batches", "exact")
    for column in columns:
        table.add_column(column, justify="right")
    for number, run in enumerate(runs, 1):
        table.add_row(
            str(number),
            f"{run.events_per_second:,.0f}",
            f"{run.bare_per_second:,.0f}",
            f"{run.events_per_second / run.bare_per_second:.3f}",
            f"{run.cpu_seconds / arguments.events * 1e6:.1f}",
            f"{run.flush_p50_ms:.2f} / {run.flush_p99_ms:.2f}",
            str(run.batches),
            "yes" if run.is_exact else "NO",
        )
    return table


if __name__ == "__main__":
    main()
