"""Each alert fires when it should and not just below, and has a runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace.settings import variables
from headrace.telemetry.metrics import catalogue
from tests.charts.firing import CASES, S, flat
from tests.charts.helm import CHART, MINIMAL, NAMESPACE, merged, one, render, run

HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
NAMES = sorted(file.stem for file in (CHART / "alerts").glob("*.yaml"))
RUNBOOKS = sorted(file.stem for file in (CHART / "runbooks").glob("*.md"))
PREFIX = "Headrace"

every_alert = pytest.mark.parametrize("name", CASES)
every_runbook = pytest.mark.parametrize("name", RUNBOOKS)


def rules(**alerts: Any) -> dict[str, Any]:
    """Return the spec of the PrometheusRule, which is a rule file of Prometheus."""
    values = merged(MINIMAL, {"alerts": {"enabled": True, **alerts}})
    spec: dict[str, Any] = one(render(values), "PrometheusRule")["spec"]
    return spec


def alert(name: str, **values: Any) -> dict[str, Any]:
    """Return one alert as it is rendered."""
    (found,) = (rule for group in rules(**values)["groups"] for rule in group["rules"] if rule.get("alert") == name)
    return dict(found)


def fires(folder: Path, name: str, series: Mapping[str, str], namespace: str = NAMESPACE) -> bool:
    """Ask promtool whether the alert fires."""
    case = CASES[name]
    (folder / "rules.yaml").write_text(json.dumps(rules()))
    asked = f'count(ALERTS{{alertname="{PREFIX}{name}", alertstate="firing"}}) > bool 0 or vector(0)'

    def told(value: int) -> str:
        inputs = [{"series": placed(each, namespace), "values": values} for each, values in series.items()]
        tests = {
            "rule_files": ["rules.yaml"],
            "evaluation_interval": f"{case.interval_minutes}m",
            "tests": [
                {
                    "interval": f"{case.interval_minutes}m",
                    "input_series": inputs,
                    "promql_expr_test": [
                        {
                            "expr": asked,
                            "eval_time": f"{case.minute}m",
                            "exp_samples": [{"labels": "{}", "value": value}],
                        }
                    ],
                }
            ],
        }
        (folder / "tests.yaml").write_text(json.dumps(tests))
        result = run("promtool", "test", "rules", str(folder / "tests.yaml"))
        return "" if result.returncode == 0 else result.stdout + result.stderr

    if (is_not := told(1)) == "":
        return True
    assert told(0) == "", is_not
    return False


def placed(series: str, namespace: str) -> str:
    """Return the series with the namespace that Prometheus adds."""
    metric, _, labels = series.partition("{")
    return f'{metric}{{namespace="{namespace}"{", " + labels if labels else "}"}'


@every_alert
def test_an_alert_fires(name: str, tmp_path: Path) -> None:
    assert fires(tmp_path, name, CASES[name].firing)


@every_alert
def test_an_alert_is_quiet_just_below(name: str, tmp_path: Path) -> None:
    assert not fires(tmp_path, name, CASES[name].quiet)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.paused])
def test_a_paused_subscription_is_no_alarm(name: str, tmp_path: Path) -> None:
    paused = {f"headrace_subscription_paused{{{S}}}": flat(1)}
    assert not fires(tmp_path, name, CASES[name].firing | paused)


@pytest.mark.parametrize("name", [name for name in CASES if name != "MetricsAbsent"])
def test_another_namespace_is_no_alarm(name: str, tmp_path: Path) -> None:
    assert not fires(tmp_path, name, CASES[name].firing, namespace="another")


def test_a_suspected_event_is_an_alarm(tmp_path: Path) -> None:
    assert fires(tmp_path, "HandlerKillsProcess", {f"headrace_claim_crash_suspects{{{S}}}": flat(1)})


def test_memory_that_is_used_up_is_an_alarm(tmp_path: Path) -> None:
    labels = 'container="headrace", reason="OOMKilled"'
    assert fires(tmp_path, "DrainCutShort", {f"kube_pod_container_status_last_terminated_reason{{{labels}}}": flat(1)})


def test_an_open_transaction_is_no_stuck_partition(tmp_path: Path) -> None:
    series = CASES["PartitionStuck"].firing
    held = {each: flat(3) for each in series if each.startswith("headrace_lag_held_records")}
    assert not fires(tmp_path, "PartitionStuck", series | held)


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(json.dumps(rules()))
    checked = run("promtool", "check", "rules", "--lint-fatal", str(tmp_path / "rules.yaml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_tried_and_has_a_runbook() -> None:
    assert [f"{PREFIX}{name}" for name in sorted(CASES)] == NAMES == RUNBOOKS


@every_runbook
def test_a_runbook_answers_four_questions(name: str) -> None:
    text = runbook(name)
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert all(part.strip() for part in re.split(r"^## .+$", text, flags=re.MULTILINE))


@every_runbook
def test_a_runbook_names_what_exists(name: str) -> None:
    text = runbook(name)
    metrics = {f"headrace_{metric.name}" for metric in catalogue()}
    assert set(re.findall(r"\bheadrace_[a-z_]+", text)) <= metrics
    assert set(re.findall(r"\bHEADRACE_[A-Z_]+", text)) <= {variable for variable, _ in variables()}
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (CHART / "runbooks" / link).exists(), link


def test_an_alert_leads_to_its_runbook() -> None:
    base = "https://example/runbooks/"
    for name in NAMES:
        assert alert(name, runbookBaseUrl=base)["annotations"]["runbook_url"] == f"{base}{name}.md"


def test_an_alert_can_be_left_out() -> None:
    spec = rules(disabled=["HeadraceLagGrowing"])
    assert "HeadraceLagGrowing" not in {rule.get("alert") for group in spec["groups"] for rule in group["rules"]}


def test_an_alert_can_be_changed() -> None:
    changed = alert("HeadraceLagGrowing", overrides={"HeadraceLagGrowing": {"threshold": 50000, "for": "1h"}})
    assert "> 50000 " in changed["expr"]
    assert changed["for"] == "1h"
    assert changed["labels"]["severity"] == "ticket"


def test_a_threshold_of_zero_is_a_threshold() -> None:
    changed = alert("HeadraceOldestPending", overrides={"HeadraceOldestPending": {"threshold": 0}})
    assert "> 0 " in changed["expr"]


def test_an_objective_moves_the_thresholds() -> None:
    expression = alert("HeadraceFreshnessBudgetFast", slo={"freshnessRatio": 0.95})["expr"]
    assert "> 0.72" in expression


def test_an_objective_of_seconds_is_written_as_a_bucket() -> None:
    buckets = {metric.name: metric.buckets for metric in catalogue()}["event_age_seconds"] or ()
    schema = json.loads((CHART / "values.schema.json").read_text())
    allowed = schema["properties"]["alerts"]["properties"]["slo"]["properties"]["freshnessSeconds"]["enum"]
    assert [float(each) for each in allowed] == [float(each) for each in buckets]
    for seconds in allowed:
        text = json.dumps(rules(slo={"freshnessSeconds": seconds}))
        assert f'le=\\\\\\"{float(seconds)}\\\\\\"' in json.dumps(text), seconds


def runbook(name: str) -> str:
    return (CHART / "runbooks" / f"{name}.md").read_text()
