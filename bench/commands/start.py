"""How long the example service takes from its start to the first event applied, with nothing but its own package."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console

from bench.starting import Start, starts
from bench.tables import Rows, terminal

FIRST, SECOND = "first start, in an empty folder", "second start"

console = Console(width=140)


def main(words: Sequence[str]) -> None:
    """Print how long a first and a second start take, and what they do meanwhile."""
    parser = argparse.ArgumentParser(prog="python -m bench start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="first and second starts (default: 5)")
    rounds = parser.parse_args(words).rounds
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        pairs = [asyncio.run(starts(Path(folder, f"round {n}"), is_timed=False)) for n in range(1, rounds + 1)]
        console.print(terminal(_rows(pairs), "seconds from the start of the process; medians, and range"))
        timed = asyncio.run(starts(Path(folder, "timed"), is_timed=True))
    for name, start in zip((FIRST, SECOND), timed, strict=True):
        console.print(terminal(_parts(start), f"{name}: what it did until {start.applied:.2f} s, in a run of its own"))


def _rows(pairs: Sequence[tuple[Start, Start]]) -> Rows:
    names = ["answers", "accepted", "applied", "processor"]
    rows = [["", "HTTP answers", "an event is accepted", "it is applied", "processor seconds"]]
    for name, each in zip((FIRST, SECOND), zip(*pairs, strict=True), strict=True):
        rows.append([name, *(_range([getattr(start, figure) for start in each]) for figure in names)])
    return rows


def _range(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _parts(start: Start) -> Rows:
    """Return a row for each part in the order of their begin; what is repeated is one, from its first to its last."""
    rows = [["part", "times", "began", "ended", "took"]]
    for name in dict.fromkeys(part[0] for part in sorted(start.parts, key=lambda part: part[1])):
        of = [(begin, end) for part, begin, end in start.parts if part == name and begin <= start.applied]
        if of:
            first, last = min(begin for begin, _ in of), max(end for _, end in of)
            rows.append([name, str(len(of)), f"{first:.2f}", f"{last:.2f}", f"{last - first:.2f}"])
    return rows
