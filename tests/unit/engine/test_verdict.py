"""What becomes of an event, as a table."""

from __future__ import annotations

import math

import pytest

import headrace
from headrace.engine.verdict import APPLY, FOLLOW, LATER, SKIP, DeadLetter, Park, Verdict, verdict
from headrace.handlers.policy import Policy
from headrace.item import Outcome

POLICY = Policy(
    attempts=4, first_seconds=0.5, max_seconds=3.0, jitter=0.2, permanent=(KeyError,), outage=(ConnectionError,)
)
HOLD = POLICY._replace(at_end="hold")


@pytest.mark.parametrize(
    ("outcome", "attempt", "expected"),
    [
        (Outcome.APPLIED, 1, APPLY),
        (Outcome.APPLIED, 4, APPLY),
        (Outcome.DUPLICATE_ID, 1, SKIP),
        (Outcome.CONFLICTING_ID, 1, SKIP),
        (Outcome.UNHANDLED, 1, SKIP),
        (Outcome.HANDLER_ERROR, 1, Park(1, 0.5, 0.2)),
        (Outcome.HANDLER_ERROR, 2, Park(2, 1.0, 0.2)),
        (Outcome.HANDLER_ERROR, 3, Park(3, 2.0, 0.2)),
        (Outcome.HANDLER_ERROR, 4, DeadLetter(Outcome.GAVE_UP, 4)),
        (Outcome.HANDLER_ERROR, 9, DeadLetter(Outcome.GAVE_UP, 4)),
        (Outcome.BEHIND_KEY, 1, FOLLOW),
        (Outcome.PROCESS_KILLED, 1, Park(3, 3.0, 0.2)),
        (Outcome.DATA_REFUSED, 1, Park(0, 0.5, 0.2)),
        (Outcome.DECODE, 1, DeadLetter(Outcome.DECODE, 1)),
        (Outcome.SCHEMA, 1, DeadLetter(Outcome.SCHEMA, 1)),
        (Outcome.UNKNOWN_TYPE, 3, DeadLetter(Outcome.UNKNOWN_TYPE, 3)),
        (Outcome.GAVE_UP, 1, DeadLetter(Outcome.GAVE_UP, 1)),
        (Outcome.PERMANENT, 1, DeadLetter(Outcome.PERMANENT, 1)),
        (Outcome.ASKED, 2, DeadLetter(Outcome.ASKED, 2)),
        (Outcome.SKIPPED_BY_HANDLER, 1, SKIP),
        (Outcome.READY, 1, LATER),
    ],
    ids=lambda value: getattr(value, "value", None) or str(value),
)
def test_verdict_of_an_outcome(outcome: Outcome, attempt: int, expected: Verdict) -> None:
    assert verdict(outcome, attempt, POLICY) == expected


@pytest.mark.parametrize(
    ("error", "attempt", "policy", "expected"),
    [
        (KeyError("x"), 1, POLICY, DeadLetter(Outcome.PERMANENT, 1)),
        (KeyError("x"), 1, HOLD, DeadLetter(Outcome.PERMANENT, 1)),
        (ConnectionResetError(), 1, POLICY, Park(0, 3.0, 0.2)),
        (ConnectionResetError(), 4, POLICY, Park(3, 3.0, 0.2)),
        (ConnectionResetError(), 1, POLICY._replace(max_seconds=900.0), Park(0, 10.0, 0.2)),
        (ValueError(), 3, HOLD, Park(3, 2.0, 0.2)),
        (ValueError(), 4, HOLD, Park(0, math.inf)),
        (None, 4, HOLD, Park(0, math.inf)),
        (headrace.Retry(60), 1, POLICY, Park(1, 60)),
        (headrace.Retry(), 2, POLICY, Park(2, 1.0, 0.2)),
        (headrace.Retry(60), 4, POLICY, DeadLetter(Outcome.GAVE_UP, 4)),
        (headrace.DeadLetter("no such page"), 1, HOLD, DeadLetter(Outcome.ASKED, 1)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_verdict_of_what_a_handler_raised(
    error: Exception | None, attempt: int, policy: Policy, expected: Verdict
) -> None:
    assert verdict(Outcome.HANDLER_ERROR, attempt, policy, error) == expected


def test_every_outcome_has_a_verdict() -> None:
    """Only an event that the run did not come to is left for later."""
    assert [outcome for outcome in Outcome if verdict(outcome, 1, POLICY) is LATER] == [Outcome.READY]


def test_single_attempt_means_no_second_run() -> None:
    assert verdict(Outcome.HANDLER_ERROR, 1, Policy(1, 0.5, 3.0)) == DeadLetter(Outcome.GAVE_UP, 1)


@pytest.mark.parametrize("attempt", [1, 2, 3, 4, 100, 1_025, 1_000_000])
def test_delay_doubles_up_to_the_longest(attempt: int) -> None:
    assert POLICY.delay(attempt) == min(3.0, 0.5 * 2 ** min(attempt - 1, 10))


@pytest.mark.parametrize("error", [None, ValueError(), TimeoutError(), ConnectionResetError()], ids=repr)
def test_probe_uses_up_no_attempt(error: BaseException | None) -> None:
    """Nor does one whose handler is given up on, which has raised nothing."""
    policy = POLICY._replace(attempts=1, transient=(OSError,)).in_an_outage()
    assert verdict(Outcome.HANDLER_ERROR, 1, policy, error) == Park(0, 3.0, 0.2)


def test_probe_that_is_permanent_is_a_dead_letter() -> None:
    decided = verdict(Outcome.HANDLER_ERROR, 1, POLICY.in_an_outage(), KeyError("x"))
    assert decided == DeadLetter(Outcome.PERMANENT, 1)
