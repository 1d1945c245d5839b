"""A run as text: the steps, and what became of the events."""

from __future__ import annotations

from rich.table import Table

from headrace.load.results import Exactness, Report, StepResult

COLUMNS = (
    *("", "offered/s", "accepted/s", "applied/s", "lag", "p50 ms", "p99 ms", "p99.9 ms", "max ms"),
    *("visible p50", "p99", "failed", "late", ""),
)
"""The percentiles are from due to accepted; the two behind `visible` from due to a state that can be read."""


def step_cells(step: StepResult) -> list[str]:
    """Return a step's row, for every kind of report."""
    accepted, visible = step.to_accepted, step.to_visible
    return [
        step.name,
        f"{step.offered_per_second:,.0f}",
        f"{step.accepted_per_second:,.0f}",
        number(step.applied_per_second),
        number(step.lag_max),
        *(number(each, 1) for each in (accepted.p50, accepted.p99, accepted.p999, accepted.max)),
        *(number(each, 1) for each in (visible.p50, visible.p99)),
        f"{step.refused + step.in_doubt:,}",
        f"{step.late_share:.1%}",
        step.verdict,
    ]


def step_table(report: Report) -> Table:
    """Return the table of the steps."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in COLUMNS:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for step in report.steps:
        table.add_row(*step_cells(step))
    return table


def step_line(step: StepResult) -> str:
    """Return a step as a sentence."""
    held = {"held": "held", "not held": "NOT held", "void": "VOID", "warm-up": "done"}[step.verdict]
    text = f"{step.name}: {step.offered_per_second:,.0f} events/s {held}"
    return " ".join([f"{text}.", *step.reasons])


def ending(report: Report) -> list[str]:
    """Return what a person reads last: the knee, and whether the run was exact."""
    knee = report.knee_per_second
    held = f"The highest rate that was held is {knee:,.0f} events/s." if knee else "No rate was held."
    return [f"{held} {report.ended}", *statuses(report), *exactness_lines(report.exactness)]


def statuses(report: Report) -> list[str]:
    """Return the answers that were no acceptance, by status, and how often a time to wait was named."""
    sums: dict[str, int] = {}
    for step in report.steps:
        for status, count in step.statuses.items():
            if status not in ("202", "acknowledged"):
                sums[status] = sums.get(status, 0) + count
    if not sums:
        return []
    told, retried = sum(step.retry_after for step in report.steps), sum(step.retried for step in report.steps)
    named = ", ".join(f"{count:,} {status}" for status, count in sorted(sums.items()))
    return [f"Not accepted: {named}; Retry-After was named {told:,} times and followed {retried:,} times."]


def exactness_lines(found: Exactness) -> list[str]:
    """Return what became of the accepted events, as sentences."""
    rest = f"{found.parked:,} parked + {found.dead:,} dead letters"
    if found.applied is None:
        outcome = f"{found.accepted:,} accepted; {rest}, lag {number(found.lag)}"
    else:
        outcome = f"{found.accepted:,} accepted = {found.applied:,} applied + {rest}"
    read = f"{found.keys_read:,} of {found.keys:,} states were compared with the sequential result."
    if found.basis == "positions":
        read = "No state was compared, so this rests on positions, lanes and dead letters."
    lines = [f"{outcome}. {read}"]
    if found.sent_again:
        lines.append(f"{found.sent_again:,} events were in doubt and were sent again under the same ids.")
    if found.counted is not None:
        counted = ", ".join(
            f"{found.counted.get(name, 0):,} {name}" for name in ("applied", "skipped", "parked", "dead")
        )
        lines.append(f"The deployment's own counters: {counted}; the log took {number(found.records)} records.")
    lines.append("EXACT" if found.is_exact else "NOT EXACT: " + " ".join(found.faults))
    return lines


def number(value: float | None, digits: int = 0) -> str:
    """Return a figure, `-` if it is not known."""
    return "-" if value is None else f"{value:,.{digits}f}"
