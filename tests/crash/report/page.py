"""The page: a table of all runs, and for each its timeline, its faults, its refusals and what was violated."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tests.crash.report.figures import Figures
from tests.crash.report.timeline import timeline
from tests.crash.run import Result

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1d2733; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; }
th { border-bottom: 1px solid #9aa7b4; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
.clean { color: #14713d; } .broken { color: #b3261e; } code { background: #eef2f5; padding: .1rem .3rem; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: #4a5866; }
"""


def page(results: Sequence[Result], summaries: Sequence[Figures]) -> str:
    """Return the page."""
    broken = sum(summary.violation_count for summary in summaries)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>The crash machine</title>",
        f"<style>{STYLE}</style><h1>The crash machine</h1>",
        f"<p class={'broken' if broken else 'clean'}>{sum(each.events for each in summaries):,} events, "
        f"{sum(each.faults for each in summaries):,} faults, "
        f"{sum(sum(each.zombie_rejections.values()) for each in summaries):,} proven refusals of zombies, "
        f"{broken:,} violations</p>",
        _table(
            ["seed", "events", "seconds", "events/s", "faults", "missed", "zombies refused", "violations"],
            [
                [
                    *(each.seed, each.events, each.seconds, each.events_per_second, each.faults, each.missed),
                    *(sum(each.zombie_rejections.values()), each.violation_count),
                ]
                for each in summaries
            ],
        ),
    ]
    for result, summary in zip(results, summaries, strict=True):
        parts += _run(result, summary)
    return "\n".join(parts)


def _run(result: Result, summary: Figures) -> list[str]:
    faults = [
        [fault.kind, fault.point, round(fault.began, 1), round(fault.ended - fault.began, 1), fault.detail]
        for fault in result.history.faults
    ]
    kinds = sorted({kind for counts in summary.faults_by_point.values() for kind in counts})
    by_point = [[point, *(counts.get(kind, 0) for kind in kinds)] for point, counts in summary.faults_by_point.items()]
    measured = [
        *(
            {
                "transactions": summary.transactions,
                "parked": summary.parked,
                "dead letters": summary.dead_letters,
            }.items()
        ),
        ("largest worker, MB", summary.largest_megabytes),
        ("most connections", summary.most_connections),
        ("seconds until nothing waited", summary.settled_seconds),
        *summary.extras.items(),
    ]
    return [
        f"<h2>Seed {summary.seed}</h2><p>Again: <code>{escape(summary.again)}</code></p>",
        timeline(result.history),
        *(f"<p class=broken>{escape(each)}</p>" for each in summary.violations),
        "<h3>Faults by crash point</h3>",
        _table(["crash point", *kinds], by_point),
        "<h3>Proven refusals of zombies</h3>",
        _table(["fault", "statements"], list(summary.zombie_rejections.items())),
        "<h3>Measured</h3>",
        _table(["what", "how much"], measured),
        "<h3>Faults</h3>",
        _table(["kind", "crash point", "at second", "seconds", "what was hit"], faults),
    ]


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return f"<td class=n>{value:,}</td>"
    return f"<td>{escape(str(value))}</td>"
