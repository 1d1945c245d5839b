"""Steady load from a pod of the cluster, and what it has to come to: the driver's side of `inside/`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.cluster.kube import ClusterError, Kube

POD = "load"
LEAD_SECONDS = 3.0
"""The load goes on for this long before a step: each partition has commits, so that its first stand-still is seen."""
SETTLE_SECONDS = 6.0
"""The load goes on for this long after a step, so that a stand-still that the step left behind is seen to end."""


class Run(NamedTuple):
    """One run of the load: its name, how many events it sent, and how they were answered."""

    name: str
    events: int
    report: dict[str, Any]


class Load:
    """Sends known events while something happens. `runs` is everything that was ever sent."""

    def __init__(self, kube: Kube, rate: float) -> None:
        self._kube = kube
        self._rate = rate
        self.runs: list[Run] = []

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Send events until the block has ended, and a little longer. Raises: ClusterError if the load broke."""
        process = self._kube.start_exec(POD, "python3", "/scripts/load.py", name, str(self._rate))
        assert process.stdout is not None
        try:
            process.stdout.readline()  # every lane has been accepted; nothing if the load has ended
            time.sleep(LEAD_SECONDS)
            yield
            time.sleep(SETTLE_SECONDS)
        finally:
            self._kube.exec(POD, "touch", "/tmp/stop")  # noqa: S108 (of the pod)
            output, errors = process.communicate(timeout=300)
        if process.returncode != 0:
            raise ClusterError(f"the load of {name} broke: {errors.strip().splitlines()[-1:]}")
        report = json.loads(output)
        self.runs.append(Run(name, report["count"], report))

    def check(self, began: float) -> dict[str, Any]:
        """Wait until everything is applied, and return what `inside/check.py` found."""
        runs = json.dumps([[run.name, run.events] for run in self.runs])
        found: dict[str, Any] = json.loads(
            self._kube.exec(POD, "python3", "/scripts/check.py", runs, str(began), seconds=400)
        )
        return found
