"""The Prometheus of k8s/, asked through the API server: no port has to be forwarded."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from tests.cluster.kube import Kube


def query(kube: Kube, expression: str) -> list[dict[str, Any]]:
    """Return the series that an expression has now."""
    return _ask(kube, "query", {"query": expression})


def query_range(kube: Kube, expression: str, begin: float, end: float, step: float) -> list[dict[str, Any]]:
    """Return the series of an expression over a time (Unix seconds), with a value for each step."""
    return _ask(kube, "query_range", {"query": expression, "start": begin, "end": end, "step": step})


def _ask(kube: Kube, what: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    service = f"/api/v1/namespaces/{kube.namespace}/services/http:prometheus:9090/proxy"
    answer = json.loads(kube.kubectl("get", "--raw", f"{service}/api/v1/{what}?{urlencode(parameters)}"))
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found
