"""Each alert fires when it should and not just below, and has a runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from headrace.settings import variables
from headrace.telemetry.metrics import catalogue
from tests.charts.firing import CASES, S, flat
from tests.charts.helm import CHART, NAMESPACE, rules, run

HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
NAMES = sorted(file.stem for file in (CHART / "alerts").glob("*.yaml"))
RUNBOOKS = sorted(file.stem for file in (CHART / "runbooks").glob("*.md"))
PREFIX = "Headrace"
FIRED = re.compile(
    rf'expr: "count\(ALERTS{{alertname=\\"{PREFIX}(\w+)\\".*?# ([\w ]+)", time: \S+'
    r"\s+exp: {} 0E\+00\s+got: {} 1E\+00"
)
"""What promtool says of a question whose alert fires: a test that failed."""

every_alert = pytest.mark.parametrize("name", CASES)
every_runbook = pytest.mark.parametrize("name", RUNBOOKS)


def alert(name: str, **values: Any) -> dict[str, Any]:
    """Return one alert as it is rendered."""
    (found,) = (rule for group in rules(**values)["groups"] for rule in group["rules"] if rule.get("alert") == name)
    return dict(found)


class Question(NamedTuple):
    """Whether an alert fires on some series."""

    name: str
    why: str
    series: dict[str, str]
    namespace: str = NAMESPACE


def questions() -> Iterator[Question]:
    """Yield everything that promtool is asked, in one run."""
    paused = {f"headrace_subscription_paused{{{S}}}": flat(1)}
    for name, case in CASES.items():
        yield Question(name, "fires", case.firing)
        yield Question(name, "just below", case.quiet)
        if case.paused:
            yield Question(name, "paused", case.firing | paused)
        if case.firing:
            yield Question(name, "another namespace", case.firing, "another")
    memory = 'container="headrace", reason="OOMKilled"'
    out_of_memory = {f"kube_pod_container_status_last_terminated_reason{{{memory}}}": flat(1)}
    yield Question("DrainCutShort", "memory", out_of_memory)
    yield Question("HandlerKillsProcess", "suspected", {f"headrace_claim_crash_suspects{{{S}}}": flat(1)})
    stuck = CASES["PartitionStuck"].firing
    held = {each: flat(3) for each in stuck if each.startswith("headrace_lag_held_records")}
    yield Question("PartitionStuck", "open transaction", stuck | held)


@cache
def firing() -> set[tuple[str, str]]:
    """Return (name, why) of every question whose alert fires.

    One run of promtool for all, with a file of rules for each alert: itself and what it reads, since promtool evaluates
    every rule of a file for every test.
    """
    asked = list(questions())
    with TemporaryDirectory() as folder:
        for name in CASES:
            tests = [promtool_test(question) for question in asked if question.name == name]
            (Path(folder) / f"{name}.rules").write_text(json.dumps(rules_of(name)))
            whole = {"rule_files": [f"{name}.rules"], "evaluation_interval": "4m", "tests": tests}
            (Path(folder) / f"{name}.yaml").write_text(json.dumps(whole))
        result = run("promtool", "test", "rules", *(str(Path(folder) / f"{name}.yaml") for name in CASES))
    assert FIRED.sub("", result.stderr).replace("FAILED:", "").split() == [], result.stderr
    return set(FIRED.findall(result.stderr))


def promtool_test(question: Question) -> dict[str, Any]:
    """Return the question as promtool asks it: a test that fails if the alert fires."""
    case = CASES[question.name]
    alertname = f'alertname="{PREFIX}{question.name}", alertstate="firing"'
    return {
        "interval": f"{case.interval_minutes}m",
        "input_series": [
            {"series": placed(series, question.namespace), "values": values}
            for series, values in question.series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f"count(ALERTS{{{alertname}}}) > bool 0 or vector(0) # {question.why}",
                "eval_time": f"{case.minute}m",
                "exp_samples": [{"labels": "{}", "value": 0}],
            }
        ],
    }


def rules_of(name: str) -> dict[str, Any]:
    """Return the alert as a rule file, behind what Prometheus records for it."""
    rendered = [rule for group in rules()["groups"] for rule in group["rules"]]
    (found,) = (rule for rule in rendered if rule.get("alert") == f"{PREFIX}{name}")
    recorded = [rule for rule in rendered if "record" in rule and f"{rule['record']}{{" in found["expr"]]
    groups = [{"name": "recorded", "rules": recorded}, {"name": "alert", "rules": [found]}]
    return {"groups": [group for group in groups if group["rules"]]}


def placed(series: str, namespace: str) -> str:
    """Return the series with the namespace that Prometheus adds."""
    metric, _, labels = series.partition("{")
    return f'{metric}{{namespace="{namespace}"{", " + labels if labels else "}"}'


@every_alert
def test_an_alert_fires(name: str) -> None:
    assert (name, "fires") in firing()


@every_alert
def test_an_alert_is_quiet_just_below(name: str) -> None:
    assert (name, "just below") not in firing()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.paused])
def test_a_paused_subscription_is_no_alarm(name: str) -> None:
    assert (name, "paused") not in firing()


@every_alert
def test_another_namespace_is_no_alarm(name: str) -> None:
    assert (name, "another namespace") not in firing()


def test_a_suspected_event_is_an_alarm() -> None:
    assert ("HandlerKillsProcess", "suspected") in firing()


def test_memory_that_is_used_up_is_an_alarm() -> None:
    assert ("DrainCutShort", "memory") in firing()


def test_an_open_transaction_is_no_stuck_partition() -> None:
    assert ("PartitionStuck", "open transaction") not in firing()


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
    base = "https://example/runbooks"
    spec = rules(runbookBaseUrl=f"{base}/")
    alerts = [rule for group in spec["groups"] for rule in group["rules"] if "alert" in rule]
    assert sorted(rule["annotations"]["runbook_url"] for rule in alerts) == [f"{base}/{name}.md" for name in NAMES]


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
