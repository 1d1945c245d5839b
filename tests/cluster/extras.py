"""What is looked at after the steps, as far as its parts of k8s/ are there: dashboards, a trace, scaling by lag."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.cluster import checks, installation, panels, scaling, tracing
from tests.cluster.keda import Behaviour, Scaler
from tests.cluster.kube import ClusterError
from tests.cluster.load import POD, Load
from tests.cluster.report import Row
from tests.cluster.steps import Target

LAG_PER_REPLICA = 5_000
"""Records of lag that one pod is given, as in keda.yaml."""


def run(target: Target, load: Load, began_at: float, folder: Path, *, scaling: bool) -> Iterator[Row]:
    """Yield a row for each of them; what one stores is in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if "jaeger" in target.parts:
        yield _row("trace", lambda: _trace(target, folder))
    if scaling:
        yield _row("follow_lag", lambda: _follow_lag(target, load, folder))
    if "prometheus" in target.parts:
        yield _row("dashboards", lambda: _dashboards(target, began_at, folder))


def _row(name: str, look: Callable[[], tuple[str, list[str]]]) -> Row:
    began, said = time.time(), ""
    faults: list[str] = []
    try:
        said, faults = look()
    except ClusterError as error:
        faults = [str(error)]
    found: dict[str, Any] = {"said": said}
    return Row(name, name, time.time() - began, None, found, faults)


def _trace(target: Target, folder: Path) -> tuple[str, list[str]]:
    found = tracing.follow(target.kube)
    (folder / "trace.json").write_text(json.dumps(found, indent=1) + "\n")
    return f"{', '.join(found['spans'])}; linked: {', '.join(found['batches'])}", []


def _follow_lag(target: Target, load: Load, folder: Path) -> tuple[str, list[str]]:
    began = time.time()
    if by_keda := installation.has_keda(target.kube):
        installation.hand_to_keda(target.kube, target.images, target.parts)
    else:
        scaling.hold_back(target.kube)
    scaler = None if by_keda else Scaler(Behaviour(LAG_PER_REPLICA))
    course = scaling.follow_lag(target.kube, load, scaler, events=120_000, rate=6_000.0)
    found, samples = load.check(began), course.samples
    scaling.write(course, found["moved"], folder)
    most, lag = max(sample.ready for sample in samples), max(sample.lag for sample in samples)
    moves = f"{len(found['moves'])} moves, the longest {max(found['moves'], default=0):.1f} s"
    by = "KEDA" if by_keda else "KEDA's rule"
    said = f"lag up to {lag}, pods 1 to {most} to 1 in {samples[-1].at:.0f} s by {by}; {moves}"
    return said, checks.faults_of_result(found)


def _dashboards(target: Target, began_at: float, folder: Path) -> tuple[str, list[str]]:
    target.kube.exec(POD, "python3", "/scripts/oddities.py")
    time.sleep(40)  # two scrapes, and a rate over them
    found = panels.ask_all(target.kube, began_at, time.time())
    (folder / "panels.json").write_text(json.dumps([panel._asdict() for panel in found]) + "\n")
    quiet = sorted({panel.title for panel in found if not panel.series})
    return f"{len(found)} queries; without series: {', '.join(quiet) or 'none'}", panels.faults_of_panels(found)
