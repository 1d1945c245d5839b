"""The events of a run: what is sent, under which ids, and what the states must come to."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from headrace.errors import ConfigurationError
from headrace.load.template import Template

_EFFECT = re.compile(r"(\w+)=(?:(count)|(-?)sum\((\w+)\))")


class Effect(NamedTuple):
    """What an event adds to a field of its key's state: 1, or a number of its data."""

    field: str
    adds: str | None = None
    """The member of the data that is added; None counts the event."""
    sign: int = 1


class Kind(NamedTuple):
    """One type of event of the workload, and its share of the events."""

    type: str
    topic: str
    data: Template
    effects: tuple[Effect, ...] = ()
    share: float = 1.0


class Made(NamedTuple):
    """One event, ready to be sent."""

    id: str
    kind: Kind
    key: str
    data: str
    drawn: Sequence[int]


class Workload:
    """Makes the events of one run; `run` is part of every id, source and key, so that runs never meet."""

    def __init__(self, run: str, kinds: Sequence[Kind], keys: int, seed: int) -> None:
        self.run = run
        self.source = f"/headrace-load/{run}"
        self.kinds = tuple(kinds)
        self.keys = keys
        self._chance = random.Random(seed)  # noqa: S311 - a run can be repeated
        self._number = 0
        total = sum(kind.share for kind in kinds)
        self._until = [sum(kind.share for kind in kinds[: place + 1]) / total for place in range(len(kinds))]

    def make(self, count: int) -> list[Made]:
        """Return the next events, each with a key drawn from all keys."""
        chance = self._chance.random
        return [self._made(f"{self.run}-{int(chance() * self.keys)}", self._draw(chance())) for _ in range(count)]

    def make_probe(self) -> Made:
        """Return an event with a key that no other event has."""
        return self._made(f"{self.run}-probe-{self._number}", self.kinds[0])

    def _draw(self, share: float) -> Kind:
        found = (kind for kind, until in zip(self.kinds, self._until, strict=True) if share < until)
        return next(found, self.kinds[-1])

    def _made(self, key: str, kind: Kind) -> Made:
        self._number += 1
        data, drawn = kind.data.render(key, self._number, self._chance)
        return Made(f"{self.run}-{self._number}", kind, key, data, drawn)


class Expected:
    """What every state must come to: the sum of the effects of the accepted events, each once."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, int]] = {}
        """Fields by key."""
        self.events = 0
        self.by_key: dict[str, int] = defaultdict(int)

    def accept(self, events: Iterable[Made]) -> None:
        """Note that events were accepted. Never called twice with one event."""
        for event in events:
            self.events += 1
            self.by_key[event.key] += 1
            state = self.states.setdefault(event.key, {})
            for effect in event.kind.effects:
                added = 1 if effect.adds is None else event.kind.data.number_of(effect.adds, list(event.drawn))
                state[effect.field] = state.get(effect.field, 0) + effect.sign * added


def parse_effects(texts: Sequence[str], data: Template) -> tuple[Effect, ...]:
    """Return the effects that `--expect` names: `seen=count`, `balance=sum(amount)`, `balance=-sum(amount)`.

    Raises: ConfigurationError.
    """
    effects = []
    for text in texts:
        found = _EFFECT.fullmatch(text.replace(" ", ""))
        if found is None:
            raise ConfigurationError(f"--expect {text}: write FIELD=count or FIELD=sum(MEMBER), such as seen=count.")
        field, _, minus, member = found.groups()
        if member is not None:
            data.check_number(member)
        effects.append(Effect(field, member, -1 if minus else 1))
    return tuple(effects)


def counting_field(kinds: Sequence[Kind]) -> str | None:
    """Return the field that counts every event of the workload; None if there is none."""
    counted = [{effect.field for effect in kind.effects if effect == Effect(effect.field)} for kind in kinds]
    common = set.intersection(*counted) if counted else set()
    return min(common, default=None)


WALLETS: Mapping[str, tuple[float, tuple[Effect, ...]]] = {
    "wallet.credited": (0.9, (Effect("balance", "amount"), Effect("credits"), Effect("applied"))),
    "wallet.debited": (0.1, (Effect("balance", "amount", -1), Effect("debits"), Effect("applied"))),
}
"""The workload of the example service: the share and the effects of each type."""


def wallets() -> list[Kind]:
    """Return the wallet events of the example service `shop`."""
    data = Template({"customer": "{key}", "amount": "{integer 1 100}"})
    return [Kind(type_, "wallets", data, effects, share) for type_, (share, effects) in WALLETS.items()]
