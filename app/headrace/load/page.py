"""A run as one HTML file: it loads nothing, runs no script, and follows the reader's light or dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from html import escape

from headrace.load.latency import Percentiles
from headrace.load.results import Report, StepResult
from headrace.load.svg import Axis, Line, plot
from headrace.load.tables import COLUMNS, ending, step_cells, step_line

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #6a7385; --line: #d9dee7; --paper: #fff;
  --c0: #2463c9; --c1: #c2410c; --c2: #15803d; --c3: #7c3aed; --c4: #6a7385; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa4b5; --line: #333c4c; --paper: #151a22;
  --c0: #6ea3f7; --c1: #f59a66; --c2: #5cc98a; --c3: #b197fc; --c4: #9aa4b5; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1340px;
  margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
p, li { max-width: 75ch; } .soft { color: var(--soft); }
.verdict { font-weight: 650; padding: .1rem .6rem; border-radius: .3rem; color: #fff; background: #15803d; }
.verdict.bad { background: #b91c1c; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; } th { font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 1.2rem; }
figure { margin: 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--soft); }
svg line, svg polyline { fill: none; stroke-width: 1.8; } svg .grid { stroke: var(--line); stroke-width: 1; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.c4 { stroke: var(--c4); }
circle.c0 { fill: var(--c0); } circle.c1 { fill: var(--c1); } circle.c2 { fill: var(--c2); }
circle.c3 { fill: var(--c3); }
"""


def page(report: Report) -> str:
    """Return the page."""
    exact = report.exactness.is_exact
    verdict = f'<span class="verdict{"" if exact else " bad"}">{"exact" if exact else "not exact"}</span>'
    machine = ", ".join(f"{name}: {value}" for name, value in report.machine.items())
    body = [
        f"<h1>Load on {escape(report.service)} {verdict}</h1>",
        f'<p class="soft">{escape(report.target)} over {report.via}, {escape(report.started_at)}, run '
        f"{escape(report.run)}. {escape(machine)}.</p>",
        *(f"<p>{escape(line)}</p>" for line in ending(report)),
        "<h2>Steps</h2>",
        _table(report),
        _list(step_line(step) for step in report.steps if step.reasons),
        '<p class="soft">Milliseconds count from when a send was due to its acceptance; those of <i>visible</i> from '
        "when a probe was due until its state could be read.</p>",
        f'<div class="plots">{"".join(_plots(report))}</div>',
        "<h2>What was done</h2>",
        _list(report.plan),
    ]
    head = f'<meta charset="utf-8"><title>Load on {escape(report.service)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _table(report: Report) -> str:
    heads = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in step_cells(step))}</tr>" for step in report.steps
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _plots(report: Report) -> list[str]:
    steps = [step for step in report.steps if step.verdict != "warm-up"]
    samples = report.samples
    offered, milliseconds, seconds = Axis("offered events/s"), Axis("ms", is_log=True), Axis("seconds")
    known = [each for each in samples if each.applied is not None]
    return [
        _figure(
            "Latency against the offered rate",
            plot(
                "latency against the offered rate",
                offered,
                milliseconds,
                [
                    Line("p50", _over(steps, lambda step: step.to_accepted.p50), 0, has_dots=True),
                    Line("p99", _over(steps, lambda step: step.to_accepted.p99), 1, has_dots=True),
                    Line("p99.9", _over(steps, lambda step: step.to_accepted.p999), 3, has_dots=True),
                    Line("visible p50", _over(steps, lambda step: step.to_visible.p50), 2, has_dots=True),
                    Line("visible p99", _over(steps, lambda step: step.to_visible.p99), 2, True, True),
                ],
            ),
        ),
        _figure(
            "What was offered, accepted and applied",
            plot(
                "rates against the offered rate",
                offered,
                Axis("events/s"),
                [
                    Line("offered", _over(steps, lambda step: step.offered_per_second), 4, is_dashed=True),
                    Line("accepted", _over(steps, lambda step: step.accepted_per_second), 0, has_dots=True),
                    Line("applied", _over(steps, lambda step: step.applied_per_second), 2, has_dots=True),
                ],
            ),
        ),
        _figure(
            "Events over time",
            plot(
                "events over time",
                seconds,
                Axis("events"),
                [
                    Line("accepted", [(each.at_seconds, each.accepted) for each in samples], 0),
                    Line("applied", [(each.at_seconds, each.applied or 0) for each in known], 2),
                ],
            ),
        ),
        _figure(
            "Lag over time",
            plot(
                "lag over time", seconds, Axis("events"), [Line("lag", [(e.at_seconds, e.lag or 0) for e in known], 1)]
            ),
        ),
        _figure(
            "Percentiles of each step, until accepted",
            plot(
                "percentiles",
                Axis("one send in ... is slower", is_log=True),
                milliseconds,
                [
                    Line(f"{s.offered_per_second:,.0f}/s", _curve(s.to_accepted), n % 5)
                    for n, s in enumerate(steps[-5:])
                ],
            ),
        ),
    ]


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def _over(steps: list[StepResult], value: Callable[[StepResult], float | None]) -> list[tuple[float, float]]:
    return [(step.offered_per_second, at) for step in steps if (at := value(step)) is not None]


def _curve(found: Percentiles) -> list[tuple[float, float]]:
    """Return the curve over 1/(1-q), as latencies are read: each decade is one more nine."""
    return [(100 / (100 - share), at) for share, at in found.curve if share < 100 and math.isfinite(at)]
