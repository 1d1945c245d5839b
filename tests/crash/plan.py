"""What one seed does: how much is published, which faults happen in which order, and where each one hits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tests.crash.points import POINTS

WEIGHTS: Mapping[str, int] = {"kill": 1, "die at a point": 4, "freeze": 1, "freeze at a point": 3}
"""How often each kind is drawn; each is drawn once before any is drawn again by chance."""

OVERLAPS = 0.2
"""The share of faults that do not wait until the one before is over."""


class Step(msgspec.Struct, frozen=True):
    """One fault."""

    kind: str
    number: int
    """Its place in the plan."""
    chance: int
    """The seed of what it draws itself."""
    point: str = ""
    """Where it hits, of faults that hit a crash point."""
    overlaps: bool = False
    """True if it begins while the one before is not over yet."""


class Plan(msgspec.Struct, frozen=True):
    """All that is drawn from a seed; the servers' and the processes' own timing is not."""

    seed: int
    events: int
    workers: int
    partitions: int
    brokers: int
    handlers: str
    steps: Sequence[Step]


def draw(
    seed: int,
    *,
    events: int,
    faults: int,
    workers: int = 3,
    partitions: int = 6,
    brokers: int = 1,
    kinds: Sequence[str] = (),
) -> Plan:
    """Return the plan of a seed; the faults are of the given kinds, or of all."""
    chance = random.Random(seed)
    chosen = _kinds(chance, list(kinds) or list(WEIGHTS), faults)
    points = _turns(chance, list(POINTS))
    steps = [
        Step(
            kind,
            number,
            chance.getrandbits(32),
            next(points) if kind.endswith("at a point") else "",
            overlaps=number > 0 and chance.random() < OVERLAPS,
        )
        for number, kind in enumerate(chosen)
    ]
    return Plan(seed, events, workers, partitions, brokers, chance.choice(["sync", "async"]), steps)


def _kinds(chance: random.Random, kinds: Sequence[str], faults: int) -> list[str]:
    once = chance.sample(kinds, min(len(kinds), faults))
    more = chance.choices(kinds, [WEIGHTS[kind] for kind in kinds], k=faults - len(once))
    chosen = [*once, *more]
    chance.shuffle(chosen)
    return chosen


def _turns(chance: random.Random, items: list[str]) -> Iterator[str]:
    """Yield each item once in an order of chance, and again in another order."""
    while True:
        yield from chance.sample(items, len(items))
