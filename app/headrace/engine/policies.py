"""The policies of one subscription's handlers, complete: options of the handler, of the subscription, and settings."""

from __future__ import annotations

from headrace.errors import ConfigurationError
from headrace.handlers.policy import Policy, complete
from headrace.handlers.subscription import Handler, Subscription
from headrace.order.declared import InSequence
from headrace.registry import Registry
from headrace.settings import EngineSettings


class Policies:
    """What is done about each handler of a subscription when it fails."""

    def __init__(self, subscription: Subscription, settings: EngineSettings) -> None:
        order = subscription.order
        gap = {"gap_seconds": order.wait_seconds} if isinstance(order, InSequence) else {}
        self._default = complete(settings, subscription.options, gap)
        self._of_handler = {each: complete(settings, each.options, gap) for each in subscription.functions}
        self._batched = [self._of_handler[each] for each in subscription.handlers.values() if each in self._of_handler]

    def of(self, handler: Handler | None) -> Policy:
        """Return the policy of the handler; that of the subscription if it is not known which handler it was."""
        return self._of_handler.get(handler, self._default) if handler is not None else self._default

    @property
    def longest_seconds(self) -> float:
        """The longest that a call of any of the handlers in a batch may take."""
        return max((each.timeout_seconds for each in self._batched), default=self._default.timeout_seconds)


def check_policies(settings: EngineSettings, registry: Registry) -> None:
    """Refuse a time limit that other limits would cut short. Raises: ConfigurationError."""
    for subscription in registry.subscriptions.values():
        for handler in subscription.handlers.values():
            seconds = complete(settings, handler.options).timeout_seconds
            for name in ("batch_seconds", "stuck_seconds"):
                if seconds > getattr(settings, name):
                    raise ConfigurationError(
                        f"subscription {subscription.name!r}, handler {handler.name}: timeout_seconds={seconds:g} must "
                        f"be at most HEADRACE_ENGINE_{name.upper()}={getattr(settings, name):g}; lower one, or raise "
                        "the other."
                    )
