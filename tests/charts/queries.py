"""Which metrics and labels a query of Prometheus names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from headrace.telemetry.metrics import catalogue

FROM_PROMETHEUS = {"namespace", "pod", "container", "job", "instance"}
"""Labels that a scrape adds."""
FOREIGN = {
    "kube_horizontalpodautoscaler_status_current_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_spec_max_replicas": {"horizontalpodautoscaler"},
    "kube_pod_container_status_last_terminated_reason": {"reason"},
    "kube_pod_container_status_restarts_total": set[str](),
    "process_resident_memory_bytes": set[str](),
    "process_cpu_seconds_total": set[str](),
}
"""Metrics of kube-state-metrics and of every Python process, with the labels that are used."""
RECORDED = {"headrace:freshness_bad:ratio": {"subscription"}, "headrace:ingest_bad:ratio": set[str]()}
"""What the chart's recording rules make, with the labels that they keep."""
OWN = {f"headrace_{metric.name}": metric for metric in catalogue()}


def selectors(query: str) -> Iterator[tuple[str, set[str]]]:
    """Yield every metric that a query names, with the labels in its braces."""
    for name, braces in re.findall(r"\b(headrace[:_][a-z0-9_:]+|kube_\w+|process_\w+)(\{[^}]*\})?", query):
        yield name, set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', braces))


def groupings(query: str) -> set[str]:
    """Return every label that a query groups or joins by."""
    lists = re.findall(r"\b(?:by|on|without|group_right|group_left)\s*\(([^)]*)\)", query)
    return {label for each in lists for label in re.findall(r"\w+", each)}


def labels_of(name: str) -> set[str] | None:
    """Return the labels of a series; None if there is no such series."""
    if name in FOREIGN:
        return FOREIGN[name]
    for record, labels in RECORDED.items():
        if name.startswith(f"{record}_"):
            return labels
    base = OWN.get(name)
    if base is None:
        base = OWN.get(re.sub(r"_(bucket|sum|count)$", "", name))
        if base is None or base.buckets is None:
            return None
    elif base.buckets is not None:
        return None
    return {*base.labels, *(["le"] if name.endswith("_bucket") else [])}


def faults(query: str) -> list[str]:
    """Return what a query names and does not exist."""
    found: list[str] = []
    known = set(FROM_PROMETHEUS)
    for name, used in selectors(query):
        labels = labels_of(name)
        if labels is None:
            found.append(name)
            continue
        known |= labels
        found += [f"{name}{{{label}}}" for label in sorted(used - labels - FROM_PROMETHEUS)]
    return found + [f"by {label}" for label in sorted(groupings(query) - known)]


def own_metrics(query: str) -> set[str]:
    """Return the platform's metrics that a query reads."""
    names = {name for name, _ in selectors(query)}
    return {name if name in OWN else re.sub(r"_(bucket|sum|count)$", "", name) for name in names} & set(OWN)
