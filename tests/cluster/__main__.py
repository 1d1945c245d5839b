"""`make cluster-test`: installs into a namespace of its own, runs the steps, removes everything."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.cluster import checks, extras, installation, possible, steps
from tests.cluster.installation import Images
from tests.cluster.kube import ROOT, ClusterError, Kube
from tests.cluster.load import Load
from tests.cluster.report import Row, table, write

console = Console(stderr=True)


def main() -> int:
    """Return 0 if every step was exact or none may be tried, 1 if one was not exact, 2 if nothing could be tried."""
    options = _options()
    if options.if_possible:
        images = (options.image, options.next_image)
        if reason := possible.why_not(options.context, options.namespace, images):
            console.print(f"cluster-test: not run: {reason}", soft_wrap=True)
            return 0
    kube = Kube(options.context, options.namespace)
    try:
        kube.reach()
    except ClusterError as error:
        console.print(f"cluster-test: {error}", soft_wrap=True)
        return 2
    names = options.steps or (steps.SHORT if options.short else tuple(steps.EVERY))
    target = steps.Target(kube, Images(options.image, options.next_image), options.parts, options.short)
    rows: list[Row] = []
    try:
        _run(target, names, options, rows)
    except ClusterError as error:
        console.print(f"cluster-test: {error}", soft_wrap=True)
        return 2
    finally:
        if rows:
            write(rows, options.report)
        if not options.keep:
            _remove(kube)
    sys.stdout.write(f"{table(rows)}\n\n")
    failed = sum(bool(row.faults) for row in rows)
    sys.stdout.write(f"cluster-test: {len(rows) - failed} passed, {failed} failed\n")
    return 1 if failed else 0


def _run(target: steps.Target, names: Sequence[str], options: argparse.Namespace, rows: list[Row]) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("install", total=len(names) + 1)
        began, began_at = time.monotonic(), time.time()
        installation.install(target.kube, target.images, parts=target.parts)
        progress.console.print(f"installed in {time.monotonic() - began:.0f} s; {installation.test(target.kube)}")
        load = Load(target.kube, options.rate)
        for name in names:
            progress.update(bar, description=name, advance=1)
            row = _step(target, name, load)
            rows.append(row)
            progress.console.print(" | ".join(row.cells), soft_wrap=True)
        for row in extras.run(target, load, began_at, options.report, scaling=options.scaling):
            rows.append(row)
            progress.console.print(" | ".join(row.cells), soft_wrap=True)
        progress.advance(bar)


def _step(target: steps.Target, name: str, load: Load) -> Row:
    """Do one step under load and check; a step that breaks is a fault of its own, and the next one follows."""
    step, began, before = steps.EVERY[name], time.time(), len(load.runs)
    purpose = (step.__doc__ or "").strip()
    found, faults, excused = {}, [], steps.NONE
    try:
        with load.during(f"{before}-{name}"):
            excused = step(target)
    except ClusterError as error:
        faults.append(str(error))
    run = load.runs[-1] if len(load.runs) > before else None
    try:
        faults += checks.faults_of_load(run) if run is not None else []
        found = load.check(began)
        faults += checks.faults_of_result(found) + checks.faults_of_pods(target.kube, excused)
        faults += checks.faults_of_postgres(target.kube, time.time() - began)
    except ClusterError as error:
        faults.append(str(error))
    return Row(name, purpose, time.time() - began, run, found, faults)


def _remove(kube: Kube) -> None:
    try:
        installation.remove(kube)
    except ClusterError as error:
        console.print(f"cluster-test: the namespace {kube.namespace} is left: {error}", soft_wrap=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make cluster-test", description=__doc__)
    parser.add_argument("--context", help="the kube context; the current one if it is left out")
    parser.add_argument("--namespace", default="headrace-cluster-test", help="made at first, removed at last")
    parser.add_argument("--image", default="headrace:dev", help="the service; the nodes have it")
    parser.add_argument("--next-image", default="headrace:next", help="tests/cluster/next on top of it")
    parser.add_argument(
        "--parts", nargs="+", choices=installation.PARTS, default=installation.NEEDED, help="of k8s/, with their images"
    )
    parser.add_argument("--scaling", action="store_true", help="let the workers follow the lag, by KEDA if it is there")
    parser.add_argument("--rate", type=float, default=120, help="events per second")
    parser.add_argument("--steps", nargs="*", choices=list(steps.EVERY), help="some steps only, in this order")
    parser.add_argument("--short", action="store_true", help="three steps, a few minutes")
    parser.add_argument("--if-possible", action="store_true", help="say in a line why not, if there is no cluster")
    parser.add_argument("--keep", action="store_true", help="leave the namespace to be looked at")
    parser.add_argument("--report", type=Path, default=ROOT / "build" / "cluster", help="folder of table and JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
