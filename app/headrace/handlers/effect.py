"""What the declaration of an effect may say: its options, and what its signature may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace.errors import ConfigurationError
from headrace.handlers.policy import PolicyOptions
from headrace.handlers.signature import Signature

CONCURRENCY, MOST_CONCURRENCY = 1_000, 100_000


class EffectOptions(PolicyOptions, total=False):
    """The options of an effect: those of its policy, and how much of it may go on at once."""

    concurrency: int
    """The most calls under way, in each process; 1,000 if it is left out."""
    per_second: float
    """The most calls that begin in a second, over all processes of the service; no limit if it is left out."""


class EffectLimits(NamedTuple):
    """How much of an effect may go on at once."""

    concurrency: int
    per_second: float | None


def split(options: Mapping[str, Any], where: str) -> tuple[EffectLimits, dict[str, Any]]:
    """Return the limits, and the options of the policy. Raises: ConfigurationError that says what is valid."""
    policy = dict(options)
    concurrency, per_second = policy.pop("concurrency", CONCURRENCY), policy.pop("per_second", None)
    if type(concurrency) is not int or not 1 <= concurrency <= MOST_CONCURRENCY:
        raise ConfigurationError(
            f"{where}: concurrency={concurrency!r} is wrong; it is a number from 1 to {MOST_CONCURRENCY:,}."
        )
    is_number = isinstance(per_second, (int, float)) and not isinstance(per_second, bool)
    if per_second is not None and not (is_number and 0 < per_second < float("inf")):
        raise ConfigurationError(f"{where}: per_second={per_second!r} is wrong; it is a number above 0.")
    return EffectLimits(concurrency, per_second), policy


def check_effect(signature: Signature) -> None:
    """Refuse what an effect cannot have. Raises: ConfigurationError."""
    name = signature.name
    if not signature.is_async:
        raise ConfigurationError(
            f"{name}: an effect awaits the outside, so it must be `async def {name}(...)`; call a library that blocks "
            "with `await asyncio.to_thread(...)`."
        )
    if signature.is_batch:
        raise ConfigurationError(f"{name}: an effect is called for one event; take the event, not a list of them.")
    if signature.states or signature.wants_transaction or signature.tables:
        raise ConfigurationError(
            f"{name}: an effect runs behind the commit, so it takes no State, Transaction or Table; return an event, "
            "and let a handler write."
        )
