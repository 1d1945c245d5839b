"""What a caller may do follows from the scopes."""

from __future__ import annotations

import pytest

from headrace import Caller
from headrace.errors import ConfigurationError
from headrace.http.caller import check_scope


@pytest.mark.parametrize(
    ("scopes", "types"),
    [
        (["publish"], {"order.placed", "order.paid", "wallet.credited"}),
        (["publish:order.placed"], {"order.placed"}),
        (["publish:order.*"], {"order.placed", "order.paid"}),
        (["publish:order.placed", "publish:wallet.*"], {"order.placed", "wallet.credited"}),
        (["publish:*"], {"order.placed", "order.paid", "wallet.credited"}),
        (["read", "operate"], set()),
        ([], set()),
        (["openid", "publish:order.placed", "write:order.*"], {"order.placed"}),
    ],
)
def test_a_scope_may_name_the_types(scopes: list[str], types: set[str]) -> None:
    caller = Caller("till", scopes)
    assert {each for each in ("order.placed", "order.paid", "wallet.credited") if caller.may_publish(each)} == types
    assert caller.may("publish") is bool(types)
    assert caller.may("read") is ("read" in scopes)


@pytest.mark.parametrize("scope", ["write", "publish:", "publish:*.placed", "read:order.placed", ""])
def test_a_scope_that_does_not_exist_is_refused_in_a_file(scope: str) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no scope .*; the scopes are publish, publish:TYPE"):
        check_scope(scope)


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_a_limit_is_more_than_nothing(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="has to be more than 0, or None for no limit"):
        Caller("till", ["publish"], events_per_second=rate)
