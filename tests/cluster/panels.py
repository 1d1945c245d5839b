"""Every query of every dashboard, asked of the Prometheus that has watched the steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.cluster.installation import CHART
from tests.cluster.kube import Kube
from tests.cluster.prometheus import query_range

QUIET = {
    "headrace_db_commit_unknown_total": "a connection has to be lost within COMMIT",
    "headrace_client_recreated_total": "the watchdog has to replace a client of the log",
    "headrace_batch_shrunk_total": "an owner has to die of an event",
    "headrace_worker_abandoned_total": "a handler has to hang",
    "headrace_handler_killed_process_total": "a handler has to kill its process",
    "headrace_handler_errors_total": "a handler has to raise, and those of the example do not",
    "headrace_lane_released_total": "a key has to be parked",
    "headrace_events_parked_total": "a key has to be parked",
    "headrace_dead_letters_decided_total": "a person has to decide",
    "headrace_emits_refused_total": "a topic has to refuse a record",
    "headrace_events_conflict_total": "two events have to share an id",
    "headrace_events_stray_total": "another partitioner has to be at work",
    "headrace_trace_spans_dropped_total": "the collector has to be away",
    "headrace_loop_blocked_seconds": "a handler has to block the loop",
    "headrace:freshness_bad:ratio_3d": "recording rules come with the Prometheus Operator",
    "kube_pod_container_status_restarts_total": "kube-state-metrics has to run",
}
"""Metrics that may have no series after the steps, and what it takes for one."""


class Panel(NamedTuple):
    """One query of one panel with the series that it returned."""

    dashboard: str
    title: str
    kind: str
    unit: str
    query: str
    series: list[dict[str, Any]]

    @property
    def may_be_empty(self) -> bool:
        """True if the query asks for what has not happened."""
        return any(name in self.query for name in QUIET)


def ask_all(kube: Kube, begin: float, end: float) -> list[Panel]:
    """Return every query with its series over the time, one after the other."""
    return [
        panel._replace(series=query_range(kube, panel.query, begin, end, max(5.0, (end - begin) / 400)))
        for panel in _panels(kube.namespace)
    ]


def faults_of_panels(panels: list[Panel]) -> list[str]:
    """Return the queries that have no series although what they show has happened."""
    empty = [panel for panel in panels if not panel.series and not panel.may_be_empty]
    return [f"{panel.dashboard}, {panel.title}: no series: {panel.query}" for panel in empty]


def _panels(namespace: str) -> Iterator[Panel]:
    variables = {"$namespace": namespace, "$subscription": ".*", "$topic": ".*", "$__rate_interval": "1m"}
    for file in sorted((CHART / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
            for target in panel.get("targets", []):
                query = target["expr"]
                for name, text in variables.items():
                    query = query.replace(name, text)
                yield Panel(file.stem, panel["title"], panel["type"], unit, query, [])
