"""`make simulate SEEDS=1000`: runs seeds, shows how far it is, and prints how to run a failing one again."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress

from tests.simulation.plan import LARGE, SMALL, Plan, Shape, draw
from tests.simulation.shrink import shrink
from tests.simulation.simulation import Result, Simulation, simulate

FOLDER = Path("build/simulation")
CHUNK = 10

console = Console(soft_wrap=True)


def main() -> int:
    """Run what the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds are run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many processes run them")
    parser.add_argument("--seed", type=int, help="run this one alone, and print what happens in it")
    parser.add_argument("--small", action="store_true", help="runs of 75 virtual seconds, with few events and faults")
    parser.add_argument("--plan", type=Path, help="run a plan that an earlier run has written")
    options = parser.parse_args()
    quiet()
    if options.plan is not None:
        return _show(msgspec.json.decode(options.plan.read_bytes(), type=Plan))
    shape = SMALL if options.small else LARGE
    if options.seed is not None:
        return _show(draw(options.seed, shape))
    return _run(options.first, options.seeds, options.jobs, shape)


def quiet() -> None:
    """Keep the engine from writing to the log what is expected here."""
    logging.getLogger("headrace").setLevel(logging.CRITICAL + 1)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)


def run_chunk(seeds: range, shape: Shape) -> list[Result]:
    """Run some seeds, in a process of their own."""
    quiet()
    return [simulate(draw(seed, shape)) for seed in seeds]


def _run(first: int, seeds: int, jobs: int, shape: Shape) -> int:
    chunks = [range(at, min(at + CHUNK, first + seeds)) for at in range(first, first + seeds, CHUNK)]
    began, failed, counts = time.monotonic(), list[Result](), Counter[str]()
    virtual_seconds = 0.0
    with Progress(console=console) as progress, ProcessPoolExecutor(jobs) as processes:
        bar = progress.add_task("seeds", total=seeds)
        for results in processes.map(run_chunk, chunks, repeat(shape)):
            for result in results:
                virtual_seconds += result.seconds
                counts += result.counts
                if result.violation is not None:
                    failed.append(result)
                    progress.console.print(f"seed {result.plan.seed}: {result.violation}")
            progress.advance(bar, len(results))
    seconds = time.monotonic() - began
    console.print(
        f"{seeds} seeds, {virtual_seconds / 60:,.0f} virtual minutes in {seconds:,.0f} s "
        f"({virtual_seconds / 60 / seconds:.1f} a second), {len(failed)} violations"
    )
    console.print("faults: " + ", ".join(f"{kind} {count:,}" for kind, count in sorted(counts.items())))
    if failed:
        _explain(failed[0], " --small" if shape is SMALL else "")
    return 1 if failed else 0


def _explain(result: Result, size: str) -> None:
    """Shrink a failing run, and say how to run it again."""
    assert result.violation is not None
    plan = shrink(result.plan, result.violation.invariant)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"seed-{plan.seed}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(plan)))
    console.print(f'again: make simulate ARGS="--seed {plan.seed}{size}"')
    console.print(
        f'the same with {len(plan.faults)} faults and {len(plan.events)} events: make simulate ARGS="--plan {path}"'
    )


def _show(plan: Plan) -> int:
    simulation = Simulation(plan)
    result = simulation.run()
    for line in simulation.log:
        console.print(line, highlight=False, markup=False)
    console.print(plan, highlight=False)
    console.print(f"{result.seconds:.1f} virtual seconds, {result.steps:,} steps, trace {result.trace}")
    console.print(result.violation or "no violation")
    return 1 if result.violation else 0


if __name__ == "__main__":
    sys.exit(main())
