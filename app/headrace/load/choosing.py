"""Decides what a run sends and where its effect is read, from what the caller names and the target declares."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from headrace.errors import ConfigurationError
from headrace.load.target import Described, Target
from headrace.load.template import Template
from headrace.load.workload import WALLETS, Kind, parse_effects, wallets


class Choice(NamedTuple):
    """The events of a run, and who applies them."""

    kinds: tuple[Kind, ...]
    subscriptions: tuple[str, ...]
    state: tuple[str, str] | None
    sets_key: bool
    """True if the data do not hold the key, so that it is sent as `partitionkey`."""


def choose(
    target: Target, type_: str | None, data: str | None, state: str | None, expectations: Sequence[str]
) -> Choice:
    """Return what to send. Raises: ConfigurationError (what is missing, and what the target has)."""
    if type_ is None:
        if data is not None or state is not None or expectations:
            raise ConfigurationError(f"--data, --state and --expect go with --type; {_known(target)}")
        return _wallets(target)
    described = target.types.get(type_)
    if described is None:
        raise ConfigurationError(f"--type {type_} is not declared by {target.service}; {_known(target)}")
    template = Template(_data(described, data))
    effects = parse_effects(expectations, template)
    place = _state(state, described)
    if effects and place is None:
        raise ConfigurationError("--expect goes with --state SUBSCRIPTION/STATE, whose fields it names.")
    _refuse_unhandled(described)
    kind = Kind(described.type, described.topic, template, effects)
    return Choice((kind,), described.subscriptions, place, not template.has_key)


def _wallets(target: Target) -> Choice:
    """Return the workload of the example service."""
    kinds = wallets()
    found = [target.types.get(kind.type) for kind in kinds]
    if not all(each is not None and "wallets" in each.subscriptions and each.topic == "wallets" for each in found):
        raise ConfigurationError(
            f"{target.service} is not the example service, whose types are {' and '.join(WALLETS)}: name what to send "
            f"with --type and --data; {_known(target)}"
        )
    return Choice(tuple(kinds), ("wallets",), ("wallets", "wallet"), False)


def _data(described: Described, data: str | None) -> Any:
    if data is None:
        if described.example is None:
            raise ConfigurationError(f"{described.type} has no example in asyncapi.json; write its --data.")
        return described.example
    try:
        return json.loads(data)
    except ValueError as error:
        raise ConfigurationError(f"--data is not JSON: {error}.") from error


def _state(state: str | None, described: Described) -> tuple[str, str] | None:
    if state is None:
        return None
    subscription, _, name = state.partition("/")
    if not name or subscription not in described.subscriptions:
        known = ", ".join(described.subscriptions) or "none"
        raise ConfigurationError(
            f"--state {state}: write SUBSCRIPTION/STATE, the class of the state in lower case; the subscriptions that "
            f"take {described.type} are: {known}."
        )
    return subscription, name


def _refuse_unhandled(described: Described) -> None:
    if not described.subscriptions:
        raise ConfigurationError(f"no subscription takes {described.type}, so nothing would ever be applied.")


def _known(target: Target) -> str:
    return f"its types are: {', '.join(sorted(target.types)) or 'none'}."
