"""One request's trace, as Jaeger has it: from HTTP through Kafka and the batch to the emitted event."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from tests.cluster.kube import ClusterError, Kube
from tests.cluster.load import POD

OF_THE_REQUEST = {"POST /events", "send wallets"}
"""Spans of the request's own trace."""
BATCHES = {"process wallets", "send alerts", "process alerts"}
"""Spans of batches, which are traces of their own: each links to the request that brought the event."""
LIMIT_SECONDS = 90.0


def follow(kube: Kube) -> dict[str, Any]:
    """Send an event with a trace, and return the names of its spans and of those of batches that link to it.

    Raises: ClusterError that names what is missing in Jaeger after a minute and a half.
    """
    trace_id = secrets.token_hex(16)
    kube.exec(POD, "python3", "/scripts/traced.py", trace_id)
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        spans, batches = _of_trace(kube, trace_id), _linked_to(kube, trace_id)
        if spans >= OF_THE_REQUEST and batches >= BATCHES:
            return {"trace_id": trace_id, "spans": sorted(spans), "batches": sorted(batches)}
        if time.monotonic() > deadline:
            raise ClusterError(f"Jaeger has {sorted(spans)}, and {sorted(batches)} link to it.")
        time.sleep(2)


def _of_trace(kube: Kube, trace_id: str) -> set[str]:
    try:
        traces = _ask(kube, f"traces/{trace_id}")
    except ClusterError:  # Jaeger answers 404 to a trace that it has not got
        return set()
    return {span["operationName"] for trace in traces for span in trace["spans"]}


def _linked_to(kube: Kube, trace_id: str) -> set[str]:
    found = set()
    for operation in BATCHES:
        for trace in _ask(
            kube, f"traces?service=shop&operation={operation.replace(' ', '%20')}&limit=200&lookback=10m"
        ):
            for span in trace["spans"]:
                if any(reference["traceID"] == trace_id for reference in span["references"]):
                    found.add(span["operationName"])
    return found


def _ask(kube: Kube, path: str) -> list[dict[str, Any]]:
    service = f"/api/v1/namespaces/{kube.namespace}/services/http:jaeger:16686/proxy"
    data: list[dict[str, Any]] = json.loads(kube.kubectl("get", "--raw", f"{service}/api/{path}"))["data"]
    return data or []
