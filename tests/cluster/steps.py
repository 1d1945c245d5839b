"""What happens to the pods, one after the other. Each step returns the pods whose restart it has caused itself."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.cluster import installation
from tests.cluster.installation import INGEST, SELECTOR, WORKER, Images
from tests.cluster.kube import ClusterError, Kube

WORKERS = f"{SELECTOR},app.kubernetes.io/component=worker-default"
INGESTS = f"{SELECTOR},app.kubernetes.io/component=ingest"


class Target(NamedTuple):
    """What a step is done to."""

    kube: Kube
    images: Images
    parts: installation.Parts
    short: bool


Excused = frozenset[str]
NONE: Excused = frozenset()


def steady(target: Target) -> Excused:
    """Nothing happens: what the others are compared with."""
    time.sleep(10 if target.short else 30)
    return NONE


def restart_workers(target: Target) -> Excused:
    """A rolling restart of the workers."""
    return _restart(target, WORKER)


def restart_ingest(target: Target) -> Excused:
    """A rolling restart of the ingest pods."""
    return _restart(target, INGEST)


def kill_pods(target: Target) -> Excused:
    """Every ten seconds a pod is gone without a word, workers and ingest in turn, for a minute."""
    for number in range(2 if target.short else 6):
        pod = _name_of_first(target, INGESTS if number % 2 else WORKERS)
        target.kube.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
        time.sleep(10)
    target.kube.wait_rollout(WORKER, INGEST)
    return NONE


def scale(target: Target) -> Excused:
    """One worker, six, two."""
    for replicas in (1, 6, 2):
        target.kube.kubectl("scale", f"deployment/{WORKER}", f"--replicas={replicas}")
        target.kube.wait_rollout(WORKER)
        time.sleep(8)
    return NONE


def restart_one_of_six(target: Target) -> Excused:
    """One of six workers is stopped politely, three times: what a rolling restart does to the partitions."""
    target.kube.kubectl("scale", f"deployment/{WORKER}", "--replicas=6")
    target.kube.wait_rollout(WORKER)
    time.sleep(5)
    for _ in range(3):
        target.kube.kubectl("delete", "pod", _name_of_first(target, WORKERS), "--wait=true")
        target.kube.wait_rollout(WORKER)
        time.sleep(5)
    target.kube.kubectl("scale", f"deployment/{WORKER}", "--replicas=2")
    target.kube.wait_rollout(WORKER)
    return NONE


def freeze_worker(target: Target) -> Excused:
    """A worker stands still for 90 seconds, past its session, and continues: what it was doing is not committed."""
    pod = target.kube.pods(WORKERS)[0]["metadata"]
    target.kube.exec("node", "python3", "/scripts/freeze.py", "STOP", pod["uid"])
    time.sleep(90)
    target.kube.exec("node", "python3", "/scripts/freeze.py", "CONT", pod["uid"])
    time.sleep(10)
    target.kube.wait_rollout(WORKER)
    return frozenset({pod["name"]})  # the kubelet stops it, too: liveness does not answer


def upgrade(target: Target) -> Excused:
    """A new image and a new version of the chart, with a `pre` migration."""
    with tempfile.TemporaryDirectory() as folder:
        installation.upgrade(target.kube, target.images, target.parts, Path(folder))
    return NONE


def rollback(target: Target) -> Excused:
    """`helm rollback`: the old image on the newer schema."""
    installation.rollback(target.kube)
    return NONE


def restart_kafka(target: Target) -> Excused:
    """The broker ends and starts again on its data."""
    return _restart_container(target, "kafka", "TERM")


def restart_postgres(target: Target) -> Excused:
    """The database ends, with every session cut off, and starts again on its data."""
    return _restart_container(target, "postgres", "INT")


def drain_node(target: Target) -> Excused:
    """The node takes no pods and its workers are evicted: the budget lets one go, the others when it is replaced."""
    kube = target.kube
    node = target.kube.pods(WORKERS)[0]["spec"]["nodeName"]
    before = [pod["metadata"]["name"] for pod in kube.pods(WORKERS)]
    kube.kubectl("cordon", node)
    try:
        evicted = [pod for pod in before if _evict(kube, pod)]
    finally:
        kube.kubectl("uncordon", node)
    if len(evicted) != 1:
        raise ClusterError(f"of {len(before)} workers {len(evicted)} could be evicted at once; the budget is one.")
    kube.wait_rollout(WORKER)
    for pod in before:
        while pod not in evicted and not _evict(kube, pod):
            time.sleep(1)
    kube.wait_rollout(WORKER)
    return NONE


EVERY: dict[str, Callable[[Target], Excused]] = {
    step.__name__: step
    for step in (
        steady,
        restart_workers,
        restart_ingest,
        kill_pods,
        scale,
        restart_one_of_six,
        freeze_worker,
        upgrade,
        rollback,
        restart_kafka,
        restart_postgres,
        drain_node,
    )
}
SHORT = ("restart_workers", "kill_pods", "restart_postgres")
"""The steps of a short run, a few minutes."""


def _restart(target: Target, deployment: str) -> Excused:
    target.kube.kubectl("rollout", "restart", f"deployment/{deployment}")
    target.kube.wait_rollout(deployment)
    time.sleep(5)
    return NONE


def _restart_container(target: Target, name: str, signal: str) -> Excused:
    selector = f"app.kubernetes.io/name={name}"
    before = _restarts(target.kube, selector)
    target.kube.kubectl("exec", f"deployment/{name}", "--", "sh", "-c", f"kill -{signal} 1")
    deadline = time.monotonic() + 120
    while _restarts(target.kube, selector) == before:
        if time.monotonic() > deadline:
            raise ClusterError(f"{name} was not started again within 120 s.")
        time.sleep(0.5)
    target.kube.wait_rollout(name)
    time.sleep(10)
    return NONE


def _restarts(kube: Kube, selector: str) -> int:
    return sum(each["restartCount"] for pod in kube.pods(selector) for each in pod["status"]["containerStatuses"])


def _name_of_first(target: Target, selector: str) -> str:
    return str(
        min(target.kube.pods(selector), key=lambda pod: pod["metadata"]["creationTimestamp"])["metadata"]["name"]
    )


def _evict(kube: Kube, pod: str) -> bool:
    """Ask for an eviction, as `kubectl drain` does; False if a budget forbids it now."""
    metadata = {"name": pod, "namespace": kube.namespace}
    body = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata})
    try:
        kube.kubectl(
            "create", "--raw", f"/api/v1/namespaces/{kube.namespace}/pods/{pod}/eviction", "--filename=-", stdin=body
        )
    except ClusterError as refusal:
        if "disruption budget" in str(refusal):
            return False
        raise
    return True
