"""What the checkers say of calls, and of their attempts, when claims change their owners."""

from __future__ import annotations

import pytest

from tests.crash.checkers.outside import check_calls
from tests.crash.clean_run import add, clean, found
from tests.crash.cluster import NAME
from tests.crash.evidence import Call, CountedDeath
from tests.crash.history import ClaimChange


@pytest.mark.parametrize(("claimed_at", "writer", "is_found"), [(10.0, 9, False), (0.0, 9, True), (10.0, 8, True)])
def test_calls_may_come_again_once_the_claim_was_taken_again(claimed_at: float, writer: int, is_found: bool) -> None:
    evidence = clean()
    add(evidence.streams, "told", "a", [2])
    evidence.streams.places["told", "a", 1] = (f"{NAME}-told", 0, 0)
    evidence.calls = [
        Call("step", "a", 1, "x", 1.0, 9),
        Call("mail", "a", 1, "x", 2.0, 9),
        Call("step", "a", 2, "y", 3.0, 9),
        Call("mail", "a", 1, "x", 20.0, 9),
    ]
    claim = (f"{NAME}.mails", f"{NAME}-told", 0, f"host/{writer}/1", 2, "v", 0, 0, writer, 0)
    evidence.history.changes.append(ClaimChange(3, claimed_at, *claim))
    assert any("came behind" in each.text for each in check_calls(evidence)) is is_found


@pytest.mark.parametrize(("claimed_at", "is_found"), [(1.0, False), (10.0, True)])
def test_answer_that_was_kept_before_the_claim_is_known(claimed_at: float, is_found: bool) -> None:
    evidence = clean()
    evidence.streams.places["told", "a", 1] = (f"{NAME}-told", 0, 0)
    evidence.calls = [
        Call("step", "a", 1, "x", 1.0, 8),
        Call("mail", "a", 1, "x", 2.0, 8),
        Call("step", "a", 1, "x", 20.0, 9),
    ]
    claim = (f"{NAME}.mails", f"{NAME}-told", 0, "host/9/1", 2, "v", 0, 0, 9, 0)
    evidence.history.changes.append(ClaimChange(3, claimed_at, *claim))
    assert any("was kept before" in each.text for each in check_calls(evidence)) is is_found


def test_death_is_counted_by_who_took_the_claim_of_the_dead() -> None:
    evidence = clean()
    taken = evidence.history.changes[1]._replace(number=3, epoch=2, token="u", owner="host/8/1", writer=8)
    evidence.history.changes.append(taken)
    evidence.counted_deaths.append(CountedDeath(f"{NAME}.lists", 0, 8))
    assert found(evidence) == set()
