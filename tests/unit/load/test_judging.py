"""Verdicts over the figures of a step, percentiles, and the pages made of them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as Xml

import pytest

from headrace.load.judge import judge
from headrace.load.latency import Latencies
from headrace.load.page import page
from headrace.load.results import Exactness, Report, Sample, StepResult
from headrace.load.tables import ending


def step(**changes: object) -> StepResult:
    latencies = Latencies()
    for number in range(1_000):
        latencies.add(number / 100_000)
    found = StepResult(
        name="step 1",
        offered_per_second=100,
        seconds=10,
        sends=1_000,
        late_sends=0,
        sent=1_000,
        unsent=0,
        accepted=1_000,
        refused=0,
        in_doubt=0,
        retry_after=0,
        retried=0,
        statuses={"202": 1_000},
        accepted_per_second=100,
        applied_per_second=100,
        lag_begin=0,
        lag_end=0,
        lag_max=3,
        to_accepted=latencies.percentiles(),
        to_visible=Latencies().percentiles(),
    )
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def test_a_step_without_fault_is_held() -> None:
    assert judge(step(), 1_000) == ("held", [])


def test_late_sends_void_the_step_whatever_else_it_shows() -> None:
    verdict, (reason,) = judge(step(late_sends=11, refused=500), 1_000)
    assert verdict == "void"
    assert reason.startswith("1.1% of the sends began more than 10 ms late, so this generator is the bottleneck")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"refused": 20, "statuses": {"202": 980, "429": 20}}, "2.0% of the events were not accepted"),
        ({"unsent": 5}, "5 events were not sent any more"),
        ({"accepted_per_second": 80}, "80 events/s were accepted of 100"),
        ({"applied_per_second": 60, "lag_end": 400}, "the lag grew by 400 events"),
    ],
)
def test_what_a_rate_was_not_held_for_is_told(changes: dict[str, object], words: str) -> None:
    verdict, (reason,) = judge(step(**changes), 1_000)
    assert verdict == "not held"
    assert words in reason


def test_slow_acceptance_is_not_held() -> None:
    assert judge(step(), 9)[0] == "not held"


def test_percentiles_are_exact_and_rare_ones_are_not_told() -> None:
    found = step().to_accepted
    assert (found.count, found.p50, found.p99, found.max) == (1_000, 5.0, 9.9, 9.99)
    assert found.p999 is None
    assert Latencies().percentiles().max is None


def report(*, is_exact: bool = True) -> Report:
    exactness = Exactness(
        is_exact, "states", 1_000, 1_000, 0, 0, 0, 2, 0, 10, 10, 1_001, {"applied": 1_000, "skipped": 1}, []
    )
    if not is_exact:
        exactness.faults = ["k1 has {'n': 1}, and the events come to {'n': 2}."]
    samples = [Sample(0.0, 0, 0, 0, 1), Sample(0.5, 50, 40, 10, 1), Sample(1.0, 100, None, None, 0)]
    steps = [step(), step(name="<step>", offered_per_second=200, statuses={"202": 900, "503": 100}, retry_after=3)]
    return Report(
        "r1", "http://x", "shop", "http", "now", ["<plan>"], ["w"], {"a": "b"}, steps, samples, 100, "Held.", exactness
    )


def test_ending_says_what_became_of_the_events() -> None:
    said = ending(report())
    assert said[0] == "The highest rate that was held is 100 events/s. Held."
    assert "Not accepted: 100 503; Retry-After was named 3 times and followed 0 times." in said
    assert said[-1] == "EXACT"
    assert ending(report(is_exact=False))[-1].startswith("NOT EXACT: k1 has")


def test_page_is_one_file_without_scripts() -> None:
    html = page(report())
    assert not re.search(r"<script|<link|src=|@import|url\(", html)
    assert "&lt;step&gt;" in html
    assert "&lt;plan&gt;" in html
    plots = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(plots) == 5
    for svg in plots:
        assert Xml.fromstring(svg).tag == "svg"  # noqa: S314 - our own
