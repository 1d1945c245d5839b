"""What becomes of an event: the answer to "and if it fails?". Pure: no clock, no chance, no I/O.

| outcome of the run | first run, from the log | a later run, from its lane |
| --- | --- | --- |
| applied | applied | leaves the lane |
| duplicate, conflicting id, no handler | skipped | leaves the lane |
| the handler raised, or did not return | waits in its key's lane; retried after a growing delay | likewise, until |
|  |  | its attempts are used up: dead letter |
| behind an event of its key that waits | waits in the lane, in order | likewise |
| its process died each time | one last attempt, after the longest delay | dead letter |
| Postgres refused its data | waits in the lane with all its attempts | as a handler that raised |
| not an event, wrong data, unknown type | dead letter at once | dead letter at once |
| the run ended before it | the next run's | the next run's |
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from headrace.item import DEAD, SKIPPED, Outcome


class RetryPolicy(NamedTuple):
    """How often and when a failing event is run again. Times are seconds."""

    attempts: int
    first_seconds: float
    longest_seconds: float

    def delay(self, attempt: int) -> float:
        """Return the longest delay before the run that follows the failed attempt number `attempt` (1, 2, ...)."""
        doublings = min(attempt - 1, 64)  # a float overflows after 1,024 of them
        return min(self.longest_seconds, self.first_seconds * 2.0**doublings)


class Apply(NamedTuple):
    """The event took effect."""


class Skip(NamedTuple):
    """The event needs no run: it is a duplicate, or nobody handles its type."""


class Park(NamedTuple):
    """The event heads its key's lane: `attempts` runs have failed, the next one comes after at most `delay` seconds."""

    attempts: int
    delay: float


class Follow(NamedTuple):
    """The event waits in its key's lane behind another."""


class DeadLetter(NamedTuple):
    """The event is given up on; `attempts` runs have failed."""

    reason: Outcome
    attempts: int


class Later(NamedTuple):
    """The run ended before it came to the event."""


Verdict: TypeAlias = Apply | Skip | Park | Follow | DeadLetter | Later

APPLY, SKIP, FOLLOW, LATER = Apply(), Skip(), Follow(), Later()


def verdict(outcome: Outcome, attempt: int, policy: RetryPolicy) -> Verdict:
    """Return what becomes of an event whose run number `attempt` ended so."""
    if outcome is Outcome.APPLIED:
        return APPLY
    if outcome in SKIPPED:
        return SKIP
    if outcome is Outcome.BEHIND_KEY:
        return FOLLOW
    if outcome is Outcome.HANDLER_ERROR:
        if attempt >= policy.attempts:
            return DeadLetter(Outcome.GAVE_UP, policy.attempts)
        return Park(attempt, policy.delay(attempt))
    if outcome is Outcome.PROCESS_KILLED:
        return Park(policy.attempts - 1, policy.longest_seconds)
    if outcome is Outcome.DATA_REFUSED:
        return Park(0, policy.delay(1))
    if outcome in DEAD:
        return DeadLetter(outcome, attempt)
    return LATER
