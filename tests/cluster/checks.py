"""What has to hold after each step, as sentences of what does not."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tests.cluster.installation import SELECTOR
from tests.cluster.kube import Kube
from tests.cluster.load import Run


def faults_of_load(run: Run) -> list[str]:
    """Every event that was due is accepted, and no answer was another 5xx than 503 with Retry-After."""
    faults = list(run.report["violations"][:5])
    if run.report["accepted"] != run.events:
        faults.append(f"{run.report['accepted']} of {run.events} events were accepted")
    return faults


def faults_of_result(found: dict[str, Any]) -> list[str]:
    """Everything accepted is applied once and in order, no lag is left, and the service's own audit agrees."""
    return list(found["wrong"]) + faults_of_audit(found["audit"])


def faults_of_audit(answers: list[dict[str, Any]] | None) -> list[str]:
    """The audit finds nothing; a release without an audit has none to answer for."""
    return [f"the audit finds {answer}" for answer in answers or [] if not answer["clean"]]


def faults_of_pods(kube: Kube, excused: Collection[str]) -> list[str]:
    """Every pod is ready, and none was started again; `excused` are those that the step has stopped itself."""
    faults = []
    for pod in kube.pods(SELECTOR):
        name = pod["metadata"]["name"]
        for container in pod["status"].get("containerStatuses", []):
            if not container["ready"] and not container["state"].get("terminated"):
                faults.append(f"{name} is not ready")
            if container["restartCount"] and name not in excused:
                faults.append(f"{name} was started again: {container.get('lastState')}")
    return faults


def faults_of_postgres(kube: Kube, seconds: float) -> list[str]:
    """The kernel has ended no session: Postgres would begin anew each time, which looks like moves that take long."""
    said = kube.kubectl("logs", "deployment/postgres", f"--since={seconds:.0f}s")
    count = said.count("was terminated by signal 9")
    return [f"Postgres was out of memory {count} times: raise the limit of k8s/postgres"] if count else []
