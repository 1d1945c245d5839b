"""The figures as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.table import Table

from bench.comparison import Comparison
from bench.measure import Run

COLUMNS = (
    *("contender", "events/s", "range", ": bare loop", "µs worker", "µs Postgres", "µs broker"),
    *("peak MB", "WAL B", "ledger B", "exact"),
)
"""Microseconds of processor time and bytes are per event."""


def comparison_table(comparison: Comparison, labels: Mapping[str, str], title: str) -> Table:
    """Return a row per contender: medians over its runs."""
    table = Table(title=title)
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number == 0 else "right")
    for name in comparison.contenders:
        table.add_row(labels[name], *_cells(comparison, name))
    return table


def _cells(comparison: Comparison, name: str) -> list[str]:
    runs = comparison.of(name)
    rates = [run.events_per_second for run in runs]
    share = comparison.of_bare_loop(name)

    def per_event(figure: Callable[[Run], float], digits: int) -> str:
        value = comparison.median(name, lambda run: figure(run) / run.events)
        return f"{value:,.{digits}f}" if value else "-"

    peak = comparison.median(name, lambda run: run.peak_bytes)
    return [
        f"{comparison.rate(name):,.0f}",
        f"{min(rates):,.0f} - {max(rates):,.0f}",
        f"{share:.3f}" if share is not None else "-",
        per_event(lambda run: run.cpu.worker * 1e6, 2),
        per_event(lambda run: run.cpu.postgres * 1e6, 2),
        per_event(lambda run: run.cpu.broker * 1e6, 2),
        f"{peak / 1e6:,.0f}" if peak else "-",
        per_event(lambda run: run.cost.wal_bytes, 0),
        per_event(lambda run: run.cost.ledger_bytes, 0),
        "NO" if any(run.fault for run in runs) else "yes",
    ]


def flush_line(runs: list[Run]) -> str:
    """Return the flushes of the sitting in a line: the range of each percentile over the runs."""
    ranges = []
    for name in ("p50", "p90", "p99"):
        values = [getattr(run.flush, name) for run in runs]
        ranges.append(f"{name} {min(values):.2f} - {max(values):.2f}")
    return f"flush, ms: {', '.join(ranges)}"
