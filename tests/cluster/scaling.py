"""The load goes from nothing to more than the pods can do and back, and their number follows the lag."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.cluster.installation import WORKER
from tests.cluster.keda import Scaler
from tests.cluster.kube import ClusterError, Kube
from tests.cluster.load import POD, Load, Run

CPU_LIMIT = "150m"
"""Of each worker: so that six do six times as much as one, also where two processors are all there is."""
LIMIT_SECONDS = 300.0
QUIET_SECONDS = 8.0
STOP = "/tmp/stop-lag"  # noqa: S108 (of the pod)


class Sample(NamedTuple):
    """What was seen at a moment: seconds since the beginning, the group's lag, the Deployment's pods."""

    at: float
    lag: int
    wanted: int
    ready: int


class Course(NamedTuple):
    """What was seen, from a moment on (Unix seconds)."""

    began_at: float
    samples: list[Sample]


def hold_back(kube: Kube) -> None:
    """Leave one worker, and little of a processor for each, as keda.yaml does where KEDA scales."""
    kube.kubectl("set", "resources", f"deployment/{WORKER}", f"--limits=cpu={CPU_LIMIT}", "--requests=cpu=10m")
    kube.kubectl("scale", f"deployment/{WORKER}", "--replicas=1")


def follow_lag(kube: Kube, load: Load, scaler: Scaler | None, *, events: int, rate: float) -> Course:
    """Return what was seen until the lag is gone and one pod is left; without a scaler the cluster itself has to scale.

    Raises: ClusterError if that takes too long.
    """
    kube.wait_rollout(WORKER)
    run = Run(f"{len(load.runs)}-scaling", events, {"violations": [], "accepted": events, "answers": {}})
    load.runs.append(run)
    samples = list[Sample]()
    began, began_at = time.monotonic(), time.time()
    burst = None
    for lag, partitions in _lags(kube):
        now = time.monotonic() - began
        status = kube.get(f"deployment/{WORKER}")
        current, ready = status["spec"]["replicas"], status["status"].get("readyReplicas", 0)
        samples.append(Sample(now, lag, current, ready))
        if burst is None and now > QUIET_SECONDS:
            burst = kube.start_exec(POD, "python3", "/scripts/burst.py", run.name, str(events), str(rate))
        wanted = scaler.replicas(now, current, lag, partitions) if scaler is not None else current
        if wanted != current:
            kube.kubectl("scale", f"deployment/{WORKER}", f"--replicas={wanted}")
        if burst is not None and burst.poll() is not None and lag == 0 and current == 1:
            break
        if now > LIMIT_SECONDS:
            raise ClusterError(f"after {LIMIT_SECONDS:g} s the lag is {lag} and {current} pods are wanted.")
    assert burst is not None
    if burst.wait() != 0:
        raise ClusterError(f"the burst broke: {(burst.stderr.read() if burst.stderr else '')[-300:]}")
    return Course(began_at, samples)


def write(course: Course, moved: list[tuple[float, float]], folder: Path) -> None:
    """Store what was seen, and for each partition that moved when it was applied again and how long it was not."""
    folder.mkdir(parents=True, exist_ok=True)
    moves = [{"at": at - course.began_at, "seconds": seconds} for at, seconds in moved if at >= course.began_at]
    seen = {"samples": [sample._asdict() for sample in course.samples], "moves": moves}
    (folder / "scaling.json").write_text(json.dumps(seen) + "\n")


def _lags(kube: Kube) -> Iterator[tuple[int, int]]:
    """Yield lag and number of partitions every second, until the caller has seen enough."""
    kube.exec(POD, "rm", "-f", STOP)
    process = kube.start_exec(POD, "python3", "/scripts/lag.py", "shop.wallets", "wallets", STOP)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lag, partitions = line.split()
            yield int(lag), int(partitions)
    finally:
        kube.exec(POD, "touch", STOP)
        process.stdout.close()
        process.wait()
