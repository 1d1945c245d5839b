"""What becomes of an event: the answer to "and if it fails?". Pure: no clock, no chance, no I/O.

| outcome of the run | first run, from the log | a later run, from its lane |
| --- | --- | --- |
| applied | applied | leaves the lane |
| duplicate, conflicting id, no handler, stale, the handler skips it | skipped | leaves the lane |
| the handler raised, or did not return | waits in its key's lane; retried after a growing delay | likewise, until |
|  |  | its attempts are used up: dead letter, or the key is held |
| the handler asks for a retry | likewise, after the delay that it asks for | likewise |
| the handler gives it up, or raised what is permanent | dead letter at once | dead letter at once |
| the handler raised what is a sign of an outage | waits in its key's lane, and no attempt counts | likewise |
| behind an event of its key that waits | waits in the lane, in order | likewise |
| its process died each time | one last attempt, after the longest delay | dead letter, or the key is held |
| its handler takes long, or its key's events did | waits in the lane, which runs it at once | - |
| Postgres refused its data | waits in the lane with all its attempts | as a handler that raised |
| events before it are missing | waits in the lane for them | waits on, or a dead letter when the wait is over |
| not an event, wrong data, unknown type | dead letter at once | dead letter at once |
| the run ended before it | the next run's | the next run's |
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

from headrace.handlers import verdicts
from headrace.handlers.policy import Policy
from headrace.item import DEAD, SKIPPED, Outcome

OUTAGE_SECONDS = 10.0
"""The longest wait before an event is tried again that met an outage."""


class Apply(NamedTuple):
    """The event took effect."""


class Skip(NamedTuple):
    """The event needs no run: it is a duplicate, or nobody handles its type, or its handler wants no effect."""


class Park(NamedTuple):
    """The event heads its key's lane: `attempts` runs have failed, the next one comes after at most `delay` seconds.

    An endless delay holds the key until an operator acts. Up to the part `jitter` of the delay is left out by chance.
    """

    attempts: int
    delay: float
    jitter: float = 0.0


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


def verdict(outcome: Outcome, attempt: int, policy: Policy, error: BaseException | None = None) -> Verdict:
    """Return what becomes of an event whose run number `attempt` ended so; `error` is what its handler raised."""
    if outcome is Outcome.APPLIED:
        return APPLY
    if outcome in SKIPPED:
        return SKIP
    if outcome is Outcome.BEHIND_KEY:
        return FOLLOW
    if outcome is Outcome.HANDLER_ERROR:
        return _failed(attempt, policy, error)
    if outcome is Outcome.PROCESS_KILLED:
        return Park(policy.attempts - 1, policy.max_seconds, policy.jitter)
    if outcome is Outcome.SLOW:
        return Park(0, 0.0)
    if outcome is Outcome.HELD:
        return Park(0, policy.gap_seconds)
    if outcome is Outcome.DATA_REFUSED:
        return Park(0, policy.delay(1), policy.jitter)
    if outcome in DEAD:
        return DeadLetter(outcome, attempt)
    return LATER


def _failed(attempt: int, policy: Policy, error: BaseException | None) -> Verdict:
    """Return what becomes of an event whose handler raised, or did not return."""
    if isinstance(error, verdicts.DeadLetter):
        return DeadLetter(Outcome.ASKED, attempt)
    kind = policy.kind_of(error)
    if kind == "permanent":
        return DeadLetter(Outcome.PERMANENT, attempt)
    if kind == "outage":
        return Park(attempt - 1, min(OUTAGE_SECONDS, policy.max_seconds), policy.jitter)
    if attempt >= policy.attempts:
        return Park(0, math.inf) if policy.at_end == "hold" else DeadLetter(Outcome.GAVE_UP, policy.attempts)
    if isinstance(error, verdicts.Retry) and error.after_seconds is not None:
        return Park(attempt, error.after_seconds)
    return Park(attempt, policy.delay(attempt), policy.jitter)
