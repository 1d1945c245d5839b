"""Alerts and dashboards ask for series that the code has, and every metric is looked at somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.charts.helm import CHART, MINIMAL, merged, of_kind, render, rules, to_json
from tests.charts.queries import OWN, faults, own_metrics

FILES = sorted((CHART / "dashboards").glob("*.json"))
UNITS = {"bytes", "Bps", "cps", "percentunit", "reqps", "s", "short"}
every_dashboard = pytest.mark.parametrize("name", [file.stem for file in FILES])


def dashboard(name: str) -> dict[str, Any]:
    """Return a dashboard as Grafana would read it."""
    return dict(json.loads((CHART / "dashboards" / f"{name}.json").read_text()))


def queries(board: dict[str, Any]) -> Iterator[str]:
    """Yield every query of a dashboard: of panels, annotations and variables."""
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (each["expr"] for each in board["annotations"]["list"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"label_values\((.*), (\w+)\)", r"count by (\2) (\1)", variable["query"]["query"])


@every_dashboard
def test_a_dashboard_asks_for_what_the_code_has(name: str) -> None:
    assert [fault for query in queries(dashboard(name)) for fault in faults(query)] == []


@every_dashboard
def test_a_panel_explains_itself(name: str) -> None:
    for panel in dashboard(name)["panels"]:
        title = panel["title"]
        assert panel["description"].endswith("."), title
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, title
        (link,) = panel["links"]
        runbook = link["url"].removeprefix("RUNBOOKS/")
        assert (CHART / "runbooks" / runbook).exists(), title


@every_dashboard
def test_every_variable_is_used(name: str) -> None:
    board = dashboard(name)
    text = json.dumps(board["panels"])
    for variable in board["templating"]["list"]:
        assert re.search(rf"\$\{{?{variable['name']}\b", text), variable["name"]


@every_dashboard
def test_every_query_is_of_one_namespace(name: str) -> None:
    for query in queries(dashboard(name)):
        if not query.startswith("count by (namespace)"):
            assert 'namespace="$namespace"' in query, query


@every_dashboard
def test_panels_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(name)["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_alerts_ask_for_what_the_code_has() -> None:
    found = {rule.get("alert", rule.get("record")): faults(rule["expr"]) for rule in expressions()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_every_metric_is_on_a_dashboard_or_in_an_alert() -> None:
    asked = [query for file in FILES for query in queries(dashboard(file.stem))]
    asked += [rule["expr"] for rule in expressions()]
    assert set(OWN) - {name for query in asked for name in own_metrics(query)} == set()


def test_what_prometheus_records_is_used() -> None:
    asked = " ".join(
        [*(rule["expr"] for rule in expressions()), *(q for f in FILES for q in queries(dashboard(f.stem)))]
    )
    assert [rule["record"] for rule in expressions() if "record" in rule and f"{rule['record']}{{" not in asked] == []


def test_a_dashboard_is_a_config_map_for_grafana() -> None:
    values = {"dashboards": {"enabled": True, "datasource": "main"}, "alerts": {"runbookBaseUrl": "https://example/r"}}
    maps = [
        each
        for each in of_kind(render(merged(MINIMAL, values)), "ConfigMap")
        if "grafana_dashboard" in each["metadata"]["labels"]
    ]
    assert len(maps) == len(FILES)
    for each in maps:
        (text,) = each["data"].values()
        board = json.loads(text)
        assert "DATASOURCE" not in text
        assert "RUNBOOKS" not in text
        assert board["templating"]["list"][0]["current"]["value"] == "main"


def test_the_names_of_alert_files_hold_no_other_alert() -> None:
    files = sorted((CHART / "alerts").glob("*.yaml"))
    for file, found in zip(files, to_json([file.read_text() for file in files]), strict=True):
        assert (
            {"expr", "threshold", "severity", "summary"}
            <= set(found)
            <= {
                *("expr", "threshold", "severity", "summary", "for", "budget"),
            }
        ), file.stem
        assert found["severity"] in ("page", "ticket"), file.stem


def expressions() -> list[dict[str, Any]]:
    """Return every rule as it is rendered."""
    return [rule for group in rules()["groups"] for rule in group["rules"]]
