"""How cost grows: by batch size, keys, dedupe window, payload, emits, subscriptions, partitions, processes and load."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.contenders import MSGSPEC
from bench.growth.curves import Curve, curves
from bench.growth.plots import plot_curve, plot_load
from bench.latency import measure_latency, prepare_latency
from bench.measure import Cpu, Run, measure
from bench.results import FOLDER, rounded
from bench.servers import Servers, Topic, servers
from bench.tables import Rows, terminal

LOADS = (1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 40_000)
"""Events a second; the last ones are past the knee of a machine with two cores."""
LOAD_SECONDS = 6.0
LOAD_PARTITIONS = 6
LOAD = "load"

console = Console(width=160)
Tell = Callable[[str], None]
Points = list[dict[str, Any]]


def main(words: Sequence[str]) -> None:
    """Print the curves and keep them; a run that is not exact ends the command."""
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    add = parser.add_argument
    names = [curve.name for curve in curves(0)] + [LOAD]
    add("--only", default="", help=f"curves, separated by commas, of {', '.join(names)}")
    add(
        "--most-keys",
        type=int,
        default=1_000_000,
        help="the last step of `keys` and of both `stored-keys` (default: 1000000; as an option 10000000)",
    )
    add("--shared-buffers", help="how much memory of its own Postgres has, such as 1GB (default: 256MB)")
    add("--output", type=Path, default=FOLDER, help="where results are kept (default: bench/results)")
    arguments = parser.parse_args(words)
    wanted = arguments.only.split(",") if arguments.only else names
    if unknown := set(wanted) - set(names):
        raise SystemExit(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    asyncio.run(_run(wanted, arguments))


async def _run(wanted: Sequence[str], arguments: argparse.Namespace) -> None:
    folder = arguments.output
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("starting the servers")

        def tell(text: str) -> None:
            progress.update(task, description=text)

        async with servers("own", is_traced=True, shared_buffers=arguments.shared_buffers) as running:
            topics: dict[tuple[int, ...], Topic] = {}
            for curve in curves(arguments.most_keys):
                if curve.name in wanted:
                    points = await _measure(running, curve, topics, tell)
                    _keep(folder, curve.name, points)
                    plot_curve(curve.name, curve.axis, points, folder, is_logarithmic=curve.is_logarithmic)
                    console.print(terminal(_rows(curve.axis, points), f"throughput by {curve.axis}"))
            if LOAD in wanted:
                points = await _load(running, tell)
                _keep(folder, LOAD, points)
                plot_load(points, folder)
                console.print(terminal(_load_rows(points), "latency by offered load, open loop, ms"))


async def _measure(running: Servers, curve: Curve, topics: dict[tuple[int, ...], Topic], tell: Tell) -> Points:
    points = []
    for step in curve.steps:
        tell(f"{curve.name}: {step.x:,}")
        run = await measure(running, step.contender, await step.topic(running, topics), step.prepare)
        if run.fault:
            raise SystemExit(f"{curve.name} {step.x}: not exact, so no result: {run.fault}")
        points.append(_point(step.x, run))
    return points


def _point(x: int, run: Run) -> dict[str, Any]:
    return {
        "x": x,
        "events_per_second": run.events_per_second,
        **{f"{part}_microseconds": seconds / run.events * 1e6 for part, seconds in run.cpu._asdict().items()},
        **{f"{part}_cores": seconds / run.seconds for part, seconds in run.cpu._asdict().items()},
        "others_cores": run.others_seconds / run.seconds,
        "peak_mb": run.peak_bytes / 1e6,
        "wal_bytes": run.cost.wal_bytes / run.events,
        "ledger_bytes": run.cost.ledger_bytes / run.events,
        "flush_p50_ms": run.flush.p50,
    }


async def _load(running: Servers, tell: Tell) -> Points:
    """Return the latency at each load; the first load that falls behind for good ends the curve."""
    await prepare_latency(running, LOAD_PARTITIONS)
    points = []
    for rate in LOADS:
        tell(f"latency at {rate:,} events/s")
        found = await measure_latency(running, MSGSPEC, LOAD_PARTITIONS, rate, LOAD_SECONDS)
        points.append({"x": rate, **found.percentiles, "max": found.max, "late_ratio": found.late_ratio})
        if found.percentiles["p50"] > LOAD_SECONDS * 500:
            break
    return points


def _keep(folder: Path, name: str, points: Points) -> None:
    """Put the curve into `growth.json`, beside those that were measured before."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "growth.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {name: rounded(points)}, indent=1) + "\n")


def _rows(axis: str, points: Points) -> Rows:
    head = [axis, "events/s", "µs worker", "µs Postgres", "µs broker", "cores worker", "Postgres", "broker", "others"]
    head += ["peak MB", "WAL B", "ledger B"]
    rows = []
    for point in points:
        costs = [f"{point[f'{part}_microseconds']:.1f}" for part in Cpu._fields]
        costs += [f"{point[f'{part}_cores']:.2f}" for part in (*Cpu._fields, "others")]
        sizes = [f"{point[name]:,.0f}" for name in ("peak_mb", "wal_bytes", "ledger_bytes")]
        rows.append([f"{point['x']:,}", f"{point['events_per_second']:,.0f}", *costs, *sizes])
    return [head, *rows]


def _load_rows(points: Points) -> Rows:
    names = [name for name in points[0] if name.startswith("p")] + ["max"]
    rows = [
        [f"{point['x']:,}", *(f"{point[name]:,.1f}" for name in names), f"{point['late_ratio']:.2%}"]
        for point in points
    ]
    return [["events/s", *names, "sent late"], *rows]
