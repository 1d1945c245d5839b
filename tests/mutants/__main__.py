"""`make mutants`: hunts every mutant, or those that are named, and prints a table."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]
NEEDED = ("app", "tests/__init__.py", "tests/simulation", "tests/mutants")


def main() -> int:
    """Hunt, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants by name; all of them if there is none")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long each is hunted")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many are hunted at a time")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    console = Console(width=150)
    with Progress(console=console) as progress, ThreadPoolExecutor(options.jobs) as threads:
        bar = progress.add_task("mutants", total=len(chosen))
        results = []
        for mutant, result in zip(chosen, threads.map(lambda each: hunt(each, options.seconds), chosen), strict=True):
            results.append((mutant, result))
            progress.advance(bar)
    survivors = [mutant.name for mutant, result in results if result["found"] is None]
    console.print(_table(results))
    console.print(f"{len(results) - len(survivors)} of {len(results)} mutants are caught")
    return 1 if survivors else 0


def hunt(mutant: Mutant, seconds: float) -> dict[str, Any]:
    """Return what was found of a mutant."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in NEEDED:
            source, target = ROOT / name, copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        for patch in mutant.patches:
            patch.apply(copy)
        ran = subprocess.run(
            [sys.executable, "-m", "tests.mutants.hunt", str(seconds)],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": f"{copy / 'app'}{os.pathsep}{copy}"},
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode != 0:
        raise RuntimeError(f"the mutant {mutant.name!r} does not run:\n{ran.stderr}")
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


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
