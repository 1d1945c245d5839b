"""The figures as tables: on a terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from bench.comparison import Comparison
from bench.contenders import BY_NAME, LABELS
from bench.counts import Counted
from bench.flush import Flush
from bench.latency import Latency
from bench.measure import Run

Rows = list[list[str]]
"""The first one is the head."""

PROMISE = "promise"
MOST_LATE = 0.01
"""If more events leave late, the sender is the bottleneck and not the contender."""


def throughput_rows(comparison: Comparison) -> Rows:
    """Return a row per contender: medians over its runs; microseconds of processor time and bytes are per event."""
    head = ["contender", PROMISE, "events/s", "range", ": bare loop", "µs worker", "µs Postgres", "µs broker"]
    rows = [[LABELS[name], BY_NAME[name].promise, *_cells(comparison, name)] for name in comparison.contenders]
    return [[*head, "peak MB", "WAL B", "dedupe B", "exact"], *rows]


def latency_rows(latencies: Sequence[Latency]) -> Rows:
    """Return a row per contender and rate; microseconds of processor time are per event."""
    head = ["contender", "events/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "sent late", "seen later ms"]
    rows = [[*head, "µs worker", "µs Postgres", "µs broker"]]
    for each in latencies:
        shown = [f"{each.percentiles[p]:.1f}" if p in each.percentiles else "-" for p in ("p50", "p90", "p99", "p99.9")]
        void = ", so void" if each.late_ratio > MOST_LATE else ""
        late, later = f"{each.late_ratio:.2%}{void}", f"{each.seen_later_ms:.1f}"
        used = [f"{seconds / each.events * 1e6:,.0f}" for seconds in each.cpu]
        rows.append([LABELS[each.contender], f"{each.rate:,}", *shown, f"{each.max:.1f}", late, later, *used])
    return rows


def count_rows(counted: Sequence[Counted]) -> Rows:
    """Return how often each contender talks to Postgres."""
    rows = [
        [LABELS[each.contender], f"{each.events_per_commit:,.1f}", f"{each.statements_per_commit:,.1f}"]
        + [f"{1_000 * figure / each.events:,.2f}" for figure in (each.counts.statements, each.counts.round_trips)]
        for each in counted
    ]
    return [["contender", "events/commit", "statements/commit", "statements/1,000", "round trips/1,000"], *rows]


def ratio_rows(comparison: Comparison) -> Rows:
    """Return the ratios that matter."""
    return [["ratio", ""], *([name, f"{ratio:,.2f}"] for name, ratio in comparison.ratios.items())]


def terminal(rows: Rows, title: str) -> Table:
    """Return the rows for a terminal, without what makes them too wide."""
    shown = [number for number, name in enumerate(rows[0]) if name != PROMISE]
    rows = [[row[number] for number in shown] for row in rows]
    table = Table(title=title)
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def markdown(rows: Rows) -> str:
    """Return the rows in Markdown."""
    lines = [" | ".join(row) for row in rows]
    rule = " | ".join(["---"] + ["---:"] * (len(rows[0]) - 1))
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def flush_line(flushes: Sequence[Flush]) -> str:
    """Return the flushes of the sitting in a line: the range of each percentile over the runs."""
    ranges = []
    for name in Flush._fields if flushes else ():
        values = [getattr(flush, name) for flush in flushes]
        ranges.append(f"{name} {min(values):.2f} to {max(values):.2f}")
    return f"A commit of one row took, over the runs: {', '.join(ranges) or '-'} ms."


def _cells(comparison: Comparison, name: str) -> list[str]:
    runs = comparison.of(name)
    rates = [run.events_per_second for run in runs]
    share = comparison.ratio(name, "bare-loop")

    def per_event(figure: Callable[[Run], float], digits: int) -> str:
        value = comparison.median(name, lambda run: figure(run) / run.events)
        return f"{value:,.{digits}f}" if value else "-"

    peak = comparison.median(name, lambda run: run.peak_bytes)
    return [
        f"{comparison.rate(name):,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        f"{share:.3f}" if share is not None else "-",
        per_event(lambda run: run.cpu.worker * 1e6, 2),
        per_event(lambda run: run.cpu.postgres * 1e6, 2),
        per_event(lambda run: run.cpu.broker * 1e6, 2),
        f"{peak / 1e6:,.0f}" if peak else "-",
        per_event(lambda run: run.cost.wal_bytes, 0),
        per_event(lambda run: run.cost.ledger_bytes, 0),
        "NO" if any(run.fault for run in runs) else "yes",
    ]
