"""Whether a step's rate was held: a decision over its figures alone."""

from __future__ import annotations

from headrace.load.results import StepResult, Verdict

MOST_LATE = 0.01
MOST_FAILED = 0.01
LEAST_ACCEPTED = 0.9
"""Of what was due; what is on its way at the end of a step is missing from a rate that was held."""
LEAST_APPLIED = 0.95
LAG_SECONDS = 1.0
"""A lag above this many seconds of the offered rate is a queue that grows, not one batch in flight."""


def judge(step: StepResult, p99_milliseconds: float) -> tuple[Verdict, list[str]]:
    """Return the verdict, and why in sentences.

    A step whose sends began late is void: what it says of the target may be too bad, since waits count from when a
    send was due, but never too good.
    """
    if step.late_share > MOST_LATE:
        return "void", [
            f"{step.late_share:.1%} of the sends began more than 10 ms late, so this generator is the bottleneck: use "
            "a larger --batch, more processors, or several generators."
        ]
    reasons = []
    failed = step.refused + step.in_doubt
    if failed > MOST_FAILED * step.sent:
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(step.statuses.items()))
        reasons.append(f"{failed / step.sent:.1%} of the events were not accepted ({statuses}).")
    if step.unsent:
        reasons.append(f"{step.unsent} events were not sent any more, since too many waited for an answer.")
    if not failed and step.accepted_per_second < LEAST_ACCEPTED * step.sent / step.seconds:
        reasons.append(f"{step.accepted_per_second:,.0f} events/s were accepted of {step.offered_per_second:,.0f}.")
    p99 = step.to_accepted.p99
    if p99 is not None and p99 > p99_milliseconds:
        reasons.append(f"the 99th percentile until accepted was {p99:,.0f} ms, above {p99_milliseconds:,.0f} ms.")
    applied, grown = step.applied_per_second, (step.lag_end or 0) - (step.lag_begin or 0)
    is_slow = applied is not None and applied < LEAST_APPLIED * step.accepted_per_second
    if is_slow and grown > LAG_SECONDS * step.offered_per_second:
        reasons.append(f"{applied:,.0f} events/s were applied: the lag grew by {grown:,} events.")
    return ("not held", reasons) if reasons else ("held", [])
