"""The release under test: from an empty namespace to a `helm test` that has passed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.cluster.kube import ROOT, ClusterError, Kube

HERE = Path(__file__).parent
RELEASE = "headrace"
WORKER, INGEST = "headrace-worker-default", "headrace-ingest"
CHART = ROOT / "charts" / "headrace"
SELECTOR = "app.kubernetes.io/name=headrace"
PARTS = ("kafka", "postgres", "prometheus", "otel-collector", "jaeger", "grafana")
NEEDED = PARTS[:2]
NEXT_VERSION = "0.1.1-next"


Parts = Sequence[str]
"""What of k8s/ is there."""


class Images(NamedTuple):
    """What the pods run: the service, and its next release."""

    service: str
    next: str


def install(kube: Kube, images: Images, *, parts: Parts) -> None:
    """Make the namespace, the parts of k8s/, and the release."""
    kube.kubectl("create", "namespace", kube.namespace)
    folders = [ROOT / "k8s"] if set(parts) == set(PARTS) else [ROOT / "k8s" / part for part in parts]
    for folder in folders:
        kube.kubectl("apply", "--kustomize", str(folder))
    kube.wait_rollout(*parts)
    _release(kube, "install", CHART, images.service, parts)
    scripts = [f"--from-file={file}" for file in sorted((HERE / "inside").glob("*.py"))]
    kube.kubectl("create", "configmap", "cluster-test", *scripts)
    kube.kubectl("apply", "--filename=-", stdin=(HERE / "namespace.yaml").read_text().replace("IMAGE", images.service))
    kube.kubectl("wait", "--for=condition=Ready", "pod/load", "pod/node", "--timeout=60s")


def test(kube: Kube) -> str:
    """Return the last line of `helm test`. Raises: ClusterError."""
    said = kube.helm("test", RELEASE, "--logs", "--timeout=90s").strip().splitlines()
    applied = [line for line in said if line.startswith("applied:")]
    if not applied:
        raise ClusterError(f"helm test ended without an effect: {said[-1]}")
    return applied[0]


def upgrade(kube: Kube, images: Images, parts: Parts, folder: Path) -> None:
    """Upgrade to the next image with the next version of the chart; its `pre` migration runs before the pods."""
    chart = folder / "headrace"
    shutil.copytree(CHART, chart)
    file = chart / "Chart.yaml"
    file.write_text(re.sub(r"^version: .*$", f"version: {NEXT_VERSION}", file.read_text(), flags=re.MULTILINE))
    _release(kube, "upgrade", chart, images.next, parts)


def has_keda(kube: Kube) -> bool:
    """True if KEDA's own operator may scale what is installed."""
    return bool(kube.kubectl("get", "crd", "scaledobjects.keda.sh", "--ignore-not-found", "--output=name"))


def hand_to_keda(kube: Kube, images: Images, parts: Parts) -> None:
    """Let KEDA's operator choose the number of workers, and wait until it has taken over."""
    brokers = ("--set", f"kafka.brokers={{kafka.{kube.namespace}:9092}}")
    _release(kube, "upgrade", CHART, images.service, parts, "--values", str(HERE / "keda.yaml"), *brokers)
    kube.kubectl("wait", "--for=condition=Ready", f"scaledobject/{WORKER}", "--timeout=60s")


def rollback(kube: Kube) -> None:
    """Go back to the release before."""
    kube.helm("rollback", RELEASE, "--wait", "--timeout=280s")
    kube.wait_rollout(WORKER, INGEST)


def remove(kube: Kube) -> None:
    """Remove everything; the namespace takes what is in it along."""
    kube.kubectl("delete", "namespace", kube.namespace, "--wait=true", "--timeout=200s")


def _release(kube: Kube, verb: str, chart: Path, image: str, parts: Parts, *more: str) -> None:
    repository, _, tag = image.rpartition(":")
    values = ["--values", str(CHART / "examples" / "kind.yaml"), "--values", str(HERE / "values.yaml")]
    settings = ["--set", f"image.repository={repository},image.tag={tag}"]
    if "otel-collector" not in parts:
        settings += ["--set", "otel.enabled=false"]
    kube.helm(verb, RELEASE, str(chart), *values, *settings, *more, "--wait", "--timeout=280s")
