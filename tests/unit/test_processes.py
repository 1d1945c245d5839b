"""Metrics of several processes on one page, as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from headrace.processes.pages import together

ONE = """# HELP applied_total Events.
# TYPE applied_total counter
applied_total{topic="a{b} c"} 3.0
# HELP up Whether it is.
# TYPE up gauge
up 1.0
"""
TWO = ONE.replace("3.0", "4.0")
OPEN = """# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{le="+Inf"} 2.0 # {trace_id="ab"} 0.5 1.0
seconds_count 2.0
seconds_sum 0.7
# EOF
"""


def test_each_sample_says_which_process_it_is_of() -> None:
    families = {family.name: family for family in text_string_to_metric_families(together({0: ONE, 3: TWO}))}
    assert [(each.labels, each.value) for each in families["applied"].samples] == [
        ({"process": "0", "topic": "a{b} c"}, 3.0),
        ({"process": "3", "topic": "a{b} c"}, 4.0),
    ]
    assert [each.labels for each in families["up"].samples] == [{"process": "0"}, {"process": "3"}]


def test_families_are_told_once() -> None:
    page = together({0: ONE, 1: TWO})
    assert page.count("# TYPE applied_total") == page.count("# HELP applied_total") == 1


def test_openmetrics_keep_exemplars_and_end_once() -> None:
    page = together({0: OPEN, 1: OPEN})
    assert page.endswith("# EOF\n")
    (family,) = openmetrics_parser.text_string_to_metric_families(page)  # type: ignore[no-untyped-call]
    exemplars = [each.exemplar.labels for each in family.samples if each.exemplar is not None]
    assert exemplars == [{"trace_id": "ab"}, {"trace_id": "ab"}]


def test_nothing_of_nobody_is_a_page() -> None:
    assert together({}) == "\n"
