"""The panels of the chart's dashboards, with their queries as Grafana would send them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from bench.monitored.prometheus import Prometheus, Series
from tests.charts.helm import CHART, NAMESPACE

RATE_INTERVAL = "10s"


class Line(NamedTuple):
    """One query of a panel, with what came back."""

    query: str
    legend: str
    series: list[Series]


class Panel(NamedTuple):
    """One panel, with its place on the dashboard."""

    title: str
    kind: str
    unit: str
    place: dict[str, int]
    lines: list[Line]


def dashboards() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each dashboard of the chart by its name."""
    for file in sorted((CHART / "dashboards").glob("*.json")):
        yield file.stem, json.loads(file.read_text())


def as_sent(query: str) -> str:
    """Return the query with its variables replaced."""
    for name, value in (("$__rate_interval", RATE_INTERVAL), ("$namespace", NAMESPACE)):
        query = query.replace(name, value)
    return re.sub(r"\$(subscription|topic)\b", ".*", query)


async def asked(board: dict[str, Any], server: Prometheus, since: float, until: float) -> list[Panel]:
    """Return the panels of a dashboard with the series of each query."""
    panels = []
    for panel in board["panels"]:
        lines = [
            Line(
                target["expr"],
                target.get("legendFormat", ""),
                await server.ask(as_sent(target["expr"]), since, until),
            )
            for target in panel["targets"]
        ]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        panels.append(Panel(panel["title"], panel["type"], unit, panel["gridPos"], lines))
    return panels
