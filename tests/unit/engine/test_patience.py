"""How long a call is waited for: a short time while few take longer, else its whole time limit."""

from __future__ import annotations

from headrace.engine.patience import CALLS_FOR_EACH, MOST, Patience


def test_call_is_waited_for_a_short_time_while_few_take_longer() -> None:
    patience = Patience(0.5)
    for _ in range(int(MOST)):
        assert patience.wait(30.0) == (0.5, True)
        patience.given_up()
    assert patience.wait(30.0) == (30.0, False), "a handler that always takes long would get nothing done"
    patience.called(CALLS_FOR_EACH - 1)
    assert patience.wait(30.0) == (30.0, False)
    patience.called(1)
    assert patience.wait(30.0) == (0.5, True)


def test_quick_calls_are_no_credit_for_ever() -> None:
    """After a long quiet time, no more are given up on than at the beginning."""
    patience = Patience(0.5)
    patience.called(1_000_000)
    for _ in range(int(MOST)):
        patience.given_up()
    assert not patience.wait(30.0).is_cut


def test_time_limit_that_is_shorter_counts() -> None:
    assert Patience(0.5).wait(0.2) == (0.2, False)
