"""What one seed does: how much is published, which faults happen in which order, and where each one hits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tests.crash.points import POINTS

PUT_BACK, LOSES = "put the database back", 0.7
"""The share of runs that lose what the database has committed; the others have bookings through the outbox instead."""
WEIGHTS: Mapping[str, int] = {
    "kill": 2,
    "leave": 2,
    "die at a point": 8,
    "freeze": 3,
    "freeze at a point": 6,
    "die in COMMIT": 3,
    "freeze in COMMIT": 4,
    "freeze before COMMIT arrives": 4,
    "lose COMMIT": 2,
    "lose the answer to COMMIT": 4,
    "reset Postgres": 2,
    "slow Postgres": 1,
    "lose Postgres": 2,
    "reset Kafka": 2,
    "slow Kafka": 1,
    "lose Kafka": 2,
    "kill Postgres": 2,
    "restart Postgres": 1,
    "end sessions": 2,
    "lock claims": 2,
    "deadlock": 2,
    "exhaust connections": 1,
    PUT_BACK: 4,
    "kill a broker": 2,
    "freeze a broker": 1,
    "abort a transaction": 1,
    "hang a transaction": 1,
    "make a topic again": 1,
    "cut a log off": 1,
    "add a partition": 1,
    "hang in a handler": 2,
    "block in a handler": 1,
    "die in a handler": 2,
    "die in a lane": 1,
    "crowd the processors": 3,
}
"""How often each kind is drawn; each is drawn once before any is drawn again by chance."""

AT_POINT = "at a point"
"""How kinds end that hit a crash point; each takes the points in turn."""
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
    kinds: Sequence[str]
    """The only ones that were to be drawn; any if there is none."""
    steps: Sequence[Step]
    points: Sequence[str] = ()
    """Likewise, of crash points."""
    patience: float = 180.0
    """Seconds within which nothing waits any more behind the last fault; in half of them something is applied."""
    shares: Mapping[str, float] = {}
    """How many of the events ask for something or make trouble, where it is not the load's own share."""


def draw(
    seed: int,
    *,
    events: int,
    faults: int,
    workers: int = 3,
    partitions: int = 6,
    brokers: int = 1,
    kinds: Sequence[str] = (),
    points: Sequence[str] = (),
    shares: Mapping[str, float] | None = None,
    patience: float = 180.0,
) -> Plan:
    """Return the plan of a seed; the faults are of the given kinds and at the given points, or of all."""
    chance = random.Random(seed)
    drawn = list(kinds) or [kind for kind in WEIGHTS if kind != PUT_BACK or chance.random() < LOSES]
    chosen = _kinds(chance, drawn, faults)
    turns = {kind: _turns(chance, list(points or POINTS)) for kind in drawn if kind.endswith(AT_POINT)}
    steps = [
        Step(
            kind,
            number,
            chance.getrandbits(32),
            next(turns[kind]) if kind in turns else "",
            overlaps=number > 0 and chance.random() < OVERLAPS,
        )
        for number, kind in enumerate(chosen)
    ]
    handlers = chance.choice(["sync", "async"])
    return Plan(seed, events, workers, partitions, brokers, handlers, kinds, steps, points, patience, shares or {})


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
