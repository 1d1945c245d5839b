"""The page of the metrics, made from their catalogue."""

from __future__ import annotations

from headrace.reference.tables import table
from headrace.telemetry.metrics import Metric, catalogue

INTRODUCTION = """\
# Metrics

Every process serves these metrics at `/metrics` in Prometheus' text format, on the application's port and on the
management port. Names follow Prometheus: counters end in `_total`, durations are in seconds, sizes are in bytes. A
label never holds an id, a key or the text of an exception. Only gauges carry a partition, and the owner of the
partition shows them. [Metrics to watch](../operate/metrics.md) says which of them to look at first.

`make docs` writes this page from the code.
"""


def render() -> str:
    """Return the page."""
    rows = [(f"`headrace_{m.name}`", m.kind.__name__.lower(), _labels(m), f"{m.help}.") for m in catalogue()]
    return "\n".join([INTRODUCTION, table(["metric", "kind", "labels", "meaning"], rows)])


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels)
