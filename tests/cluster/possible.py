"""Whether there is a cluster that the test may use without asking: for .ci/run, which goes on if there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence

from tests.cluster.kube import TOOLS, ClusterError, Kube

LOCAL = ("kind-", "minikube")
"""Contexts of clusters on the developer's own machine begin so; any other may be somebody's production."""


def why_not(context: str | None, namespace: str, images: Sequence[str]) -> str:
    """Return why the test cannot be run, in a sentence; nothing if it can. A context that was named is meant."""
    for program in ("kubectl", "helm"):
        if shutil.which(program) is None and not (TOOLS / program).exists():
            return f"there is no {program}."
    current = context or _current()
    if not current:
        return "kubectl knows no cluster."
    if context is None and not current.startswith(LOCAL):
        return f"the context {current} is neither kind's nor minikube's; name it if it is meant: --context={current}."
    kube = Kube(context, namespace)
    try:
        kube.reach()
    except ClusterError:
        return f"no cluster answers at the context {current}."
    missing = sorted(set(images) - _images(kube))
    return f"the nodes have no image {', '.join(missing)} (docs/kubernetes.md builds them)." if missing else ""


def _current() -> str:
    asked = subprocess.run(["kubectl", "config", "current-context"], capture_output=True, text=True, check=False)
    return asked.stdout.strip()


def _images(kube: Kube) -> set[str]:
    """Return the images of the nodes, by the names that a person gave them."""
    nodes = json.loads(kube.kubectl("get", "nodes", "--output=json"))["items"]
    names = [name for node in nodes for image in node["status"].get("images", []) for name in image["names"] or []]
    return {name.removeprefix("docker.io/").removeprefix("library/") for name in names}
