"""`make mutants`: hunts every mutant, or those that are named, and prints a table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.mutants.catalogue import MUTANTS, ON_SERVERS
from tests.mutants.copies import brokers, hunt, hunt_on_servers
from tests.mutants.mutant import Mutant


def main() -> int:
    """Hunt, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants by name; all of them if there is none")
    parser.add_argument("--servers", action="store_true", help="by the crash machine, on real servers")
    parser.add_argument("--seconds", type=float, help="how long each is hunted (default: 120, on servers 600)")
    parser.add_argument("--jobs", type=int, help="how many are hunted at a time (default: one for each core, or one)")
    options = parser.parse_args()
    seconds, jobs = (600.0, 1) if options.servers else (120.0, os.cpu_count() or 1)
    seconds, jobs = options.seconds or seconds, options.jobs or jobs
    mutants = ON_SERVERS if options.servers else MUTANTS
    chosen = [mutant for mutant in mutants if not options.names or mutant.name in options.names]
    console = Console(width=150)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(console=console))
        hunter: Callable[[Mutant, float], dict[str, Any]] = hunt
        if options.servers:
            hunter = partial(hunt_on_servers, free=stack.enter_context(brokers(jobs)))
        threads = stack.enter_context(ThreadPoolExecutor(jobs))
        bar = progress.add_task("mutants", total=len(chosen))
        hunts = {threads.submit(hunter, mutant, seconds): mutant for mutant in chosen}
        for ended in as_completed(hunts):
            progress.advance(bar)
            if not console.is_terminal:
                console.print(_line(hunts[ended], ended.result()), soft_wrap=True, markup=False)
        results = [(mutant, ended.result()) for ended, mutant in hunts.items()]
    survivors = [mutant.name for mutant, result in results if result["found"] is None]
    console.print(_table(results))
    console.print(f"{len(results) - len(survivors)} of {len(results)} mutants are caught")
    return 1 if survivors else 0


def _line(mutant: Mutant, result: dict[str, Any]) -> str:
    return f"{mutant.name}: {result['found']}, seed {result['seed']}, {result['seconds']:.0f} s, {result['late']} late"


def _table(results: list[tuple[Mutant, dict[str, Any]]]) -> Table:
    table = Table("mutant", "found by", "what", "seed", "seconds")
    for mutant, result in results:
        found = result["found"]
        table.add_row(
            mutant.name,
            found["invariant"] if found else "[bold]nobody[/]",
            found["text"][:70] if found else f"{result['late']} runs were late",
            str(result["seed"]),
            f"{result['seconds']:.1f}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
