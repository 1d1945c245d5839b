"""Runs the tools of the chart, and returns what Helm renders as plain values."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "headrace"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
TOOLS = ROOT / "build" / "tools"
NAMESPACE = "shop-space"
NEWEST = "1.34.0"
RENDERER = "chart-renderer"
"""`helm template` for many renders: tests/charts/renderer."""

KEDA = "keda.sh/v1alpha1/ScaledObject"
POD_MONITOR = "monitoring.coreos.com/v1/PodMonitor"
PROMETHEUS_RULE = "monitoring.coreos.com/v1/PrometheusRule"
HTTP_ROUTE = "gateway.networking.k8s.io/v1/HTTPRoute"
ALL_KINDS = (KEDA, POD_MONITOR, PROMETHEUS_RULE, HTTP_ROUTE)

MINIMAL: dict[str, Any] = {
    "kafka": {"brokers": ["kafka.logs:9092"]},
    "database": {"existingSecret": "database"},
    "apiKeys": {"existingSecret": "api-keys"},
}
"""The values without which nothing is rendered."""

ONE_PROCESSOR = {"GOMAXPROCS": "1", "GOGC": "off"}
"""A run is over before Go's collector is of use, and other tests need the other processors."""
FOR_LONG = {"GOMAXPROCS": "1", "GOGC": "400"}
"""The same for the renderer, which lives as long as the tests."""

Object = dict[str, Any]


class Said(NamedTuple):
    """What a render ended with: objects as YAML, or Helm's error."""

    text: str
    error: str


def tool(name: str) -> str:
    """Return the path of a tool; skips the test with the sentence that says how to get it."""
    found = TOOLS / name if (TOOLS / name).exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is missing: `make chart-tools` installs it (with Go, and from Debian).")
    return str(found)


def run(name: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end."""
    command = [tool(name), *arguments]
    environment = os.environ | (ONE_PROCESSOR if name.startswith("helm") else {})
    return subprocess.run(
        command, env=environment, input=stdin, capture_output=True, text=True, timeout=100, check=False
    )


def merged(*values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values laid over each other, as Helm does: maps are merged, anything else is replaced."""
    result: dict[str, Any] = {}
    for each in values:
        for key, value in each.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result


def said(
    values: Mapping[str, Any],
    *,
    files: Sequence[Path] = (),
    api_versions: Iterable[str] = (),
    kube_version: str = NEWEST,
    helm: str = RENDERER,
    release: str = "shop",
) -> Said:
    """Render the chart; an error is returned, not raised. `helm` is another tool than the renderer: a command line."""
    return _said(json.dumps(values), tuple(files), tuple(api_versions), kube_version, helm, release)


def render(values: Mapping[str, Any], **options: Any) -> list[Object]:
    """Return the objects that the chart renders."""
    result = said(values, **options)
    assert not result.error, result.error
    return to_json(re.split(r"^---\n", result.text, flags=re.MULTILINE))


def refusal(values: Mapping[str, Any], **options: Any) -> str:
    """Return why the chart is not rendered, in one line."""
    result = said(values, **options)
    assert result.error, "it was rendered"
    return " ".join(result.error.split())


def to_json(documents: Sequence[str]) -> list[Object]:
    """Return YAML documents as values; empty ones are left out."""
    answer = json.loads(_answer(json.dumps({"documents": list(documents)})))
    assert not answer["error"], answer["error"]
    return [each for each in answer["objects"] if each]


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    """Return the objects of a kind."""
    return [each for each in objects if each["kind"] == kind]


def one(objects: Iterable[Object], kind: str, ending: str = "") -> Object:
    """Return the one object of a kind whose name has this ending."""
    (found,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"].endswith(ending))
    return found


def rules(**alerts: Any) -> dict[str, Any]:
    """Return the spec of the PrometheusRule, which is a rule file of Prometheus."""
    values = merged(MINIMAL, {"alerts": {"enabled": True, **alerts}})
    spec: dict[str, Any] = one(render(values), "PrometheusRule")["spec"]
    return spec


def pod_specs(objects: Iterable[Object]) -> dict[str, Any]:
    """Return the spec of every pod, by kind and name of what makes it."""
    specs: dict[str, Any] = {}
    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] == "Pod":
            specs[f"Pod/{each['metadata']['name']}"] = spec
        elif "template" in spec:
            specs[f"{each['kind']}/{each['metadata']['name']}"] = spec["template"]["spec"]
    return specs


def component_of(each: Object) -> str:
    """Return which part of the release an object belongs to."""
    return str(each["metadata"]["labels"]["app.kubernetes.io/component"])


def environment(objects: Iterable[Object], ending: str) -> dict[str, Any]:
    """Return the variables of a Deployment's container, those of its ConfigMap included."""
    objects = list(objects)
    (container,) = one(objects, "Deployment", ending)["spec"]["template"]["spec"]["containers"]
    settings = next(each for each in of_kind(objects, "ConfigMap") if component_of(each) == "settings")
    data: dict[str, Any] = settings["data"]
    return data | {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


@cache
def _said(
    values: str, files: tuple[Path, ...], kinds: tuple[str, ...], kube_version: str, helm: str, release: str
) -> Said:
    if helm == RENDERER:
        request = {
            "values": json.loads(values),
            "files": list(map(str, files)),
            "api_versions": kinds,
            "kube_version": kube_version,
            "release": release,
            "namespace": NAMESPACE,
        }
        answer = json.loads(_answer(json.dumps(request)))
        return Said(answer["text"], answer["error"])
    arguments = ["template", release, str(CHART), "--namespace", NAMESPACE, "--kube-version", kube_version]
    arguments += [f"--values={file}" for file in files]
    arguments += ["--values=-", *(f"--api-versions={kind}" for kind in kinds)]
    result = run(helm, *arguments, stdin=values)
    return Said(result.stdout, result.stderr if result.returncode else "")


@cache
def _answer(request: str) -> str:
    renderer = _renderer()
    assert renderer.stdin
    assert renderer.stdout
    renderer.stdin.write(f"{request}\n")
    renderer.stdin.flush()
    return renderer.stdout.readline()


@cache
def _renderer() -> subprocess.Popen[str]:
    """Start Helm as a process that renders on request, which takes a third of the time of a start for each."""
    command = [tool(RENDERER), str(CHART)]
    renderer = subprocess.Popen(
        command, env=os.environ | FOR_LONG, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(renderer.kill)
    return renderer
