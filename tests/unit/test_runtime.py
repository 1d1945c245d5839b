"""What a runtime refuses before it opens anything."""

from __future__ import annotations

import pytest

from headrace.errors import ConfigurationError
from headrace.registry import Registry, check_subscriptions
from headrace.settings import Settings


@pytest.mark.parametrize("names", ["*", "wallets", "wallets, alerts", "*,wallets"])
def test_subscriptions_that_are_declared_may_be_named(names: str) -> None:
    check_subscriptions(Settings(subscriptions=names), _registry())


def test_subscription_that_nobody_declared_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"HEADRACE_SUBSCRIPTIONS names walets, .* declares alerts, wallets"):
        check_subscriptions(Settings(subscriptions="walets,alerts"), _registry())


def _registry() -> Registry:
    registry = Registry("shop")
    for name in ("wallets", "alerts"):
        registry.add_subscription(name, "earliest")
    return registry
