"""Measures how long partitions stand still when one of six workers is restarted politely."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.plots import new_plot, save
from bench.standstill import Gap, measure
from tests.cluster.report import percentile

console = Console(width=120)
STEP_SECONDS = 0.1


def main(words: Sequence[str]) -> None:
    """Print the median, the 95th percentile and the longest, of partitions that moved and of those that stayed."""
    parser = argparse.ArgumentParser(prog="python -m bench standstill", description=__doc__)
    parser.add_argument("--restarts", type=int, default=20, help="polite restarts, one after the other")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--rate", type=float, default=300, help="events per second, over six partitions")
    parser.add_argument("--images", type=Path, help="a folder for the histogram")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        task = progress.add_task("restarts", total=options.restarts)
        measured = measure(
            options.restarts, options.workers, options.rate, Path(folder), lambda: progress.advance(task)
        )
        gaps = asyncio.run(measured)
    for name, seconds in _groups(gaps).items():
        if seconds:
            shown = f"median {percentile(seconds, 0.5):.2f} s, 95 % {percentile(seconds, 0.95):.2f} s"
            console.print(f"{len(seconds)} partitions {name}: {shown}, longest {seconds[-1]:.2f} s")
    if options.images:
        _draw(_groups(gaps), options.images)


def _groups(gaps: Sequence[Gap]) -> dict[str, list[float]]:
    """Return the sorted seconds of those that moved and of those that stayed."""
    return {
        name: sorted(gap.seconds for gap in gaps if gap.has_moved == has_moved)
        for name, has_moved in (("that moved", True), ("that stayed", False))
    }


def _draw(groups: dict[str, list[float]], folder: Path) -> None:
    figure, axes = new_plot("Longest time without a commit, of each partition in each restart")
    top = max(seconds[-1] for seconds in groups.values() if seconds)
    edges = [number * STEP_SECONDS for number in range(int(top / STEP_SECONDS) + 2)]
    axes.hist(list(groups.values()), bins=edges, stacked=True, label=list(groups), color=["#1f6f8b", "#b0b7bd"])
    axes.set_xlabel("seconds")
    axes.set_ylabel("partitions")
    axes.legend(frameon=False)
    save(figure, folder, "standstill")
