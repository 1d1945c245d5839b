"""Shows the dashboards of the chart with data: a Prometheus scrapes a service in trouble, and every panel is asked."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.monitored.drawing import draw
from bench.monitored.panels import Panel, asked, dashboards
from bench.monitored.prometheus import prometheus
from bench.monitored.stage import kubernetes, shop

console = Console(width=160)
LAST_SECONDS = 4
"""After the last trouble, so that it is scraped."""


def main(words: Sequence[str]) -> None:
    """Print which queries return nothing, and draw the dashboards; exit code 1 if a query returned nothing."""
    parser = argparse.ArgumentParser(prog="python -m bench dashboards", description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder for a picture of each dashboard")
    arguments = parser.parse_args(words)
    since, until, shown = asyncio.run(_run())
    empty = [
        f"{name}: {panel.title}: {line.query}"
        for name, panels in shown.items()
        for panel in panels
        for line in panel.lines
        if not line.series
    ]
    lines = sum(len(panel.lines) for panels in shown.values() for panel in panels)
    console.print(f"{lines - len(empty)} of {lines} queries of {len(shown)} dashboards return series.")
    if arguments.images:
        for name, panels in shown.items():
            console.print(f"drew {draw(name, panels, since, until, arguments.images)}")
    if empty:
        raise SystemExit("\n".join(["these return nothing:", *empty]))


async def _run() -> tuple[float, float, dict[str, list[Panel]]]:
    with tempfile.TemporaryDirectory() as folder:
        async with shop(Path(folder)) as running, kubernetes() as port:
            targets = {
                "shop-ingest-0": running.first.management_port,
                "shop-worker-0": running.second.management_port,
                "kube-state-metrics": port,
            }
            async with prometheus(Path(folder), targets) as server:
                started = time.time()
                load = asyncio.create_task(running.load())
                try:
                    with Progress(console=console) as progress:
                        task = progress.add_task("", total=len(running.steps()))
                        for name, step in running.steps():
                            progress.update(task, description=name)
                            await step()
                            await asyncio.sleep(LAST_SECONDS)
                            progress.advance(task)
                finally:
                    load.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await load
                until = time.time()
                console.print("alerts that wait or fire:", ", ".join(sorted(await server.alerts())))
                shown = {name: await asked(board, server, started, until) for name, board in dashboards()}
                return started, until, shown
