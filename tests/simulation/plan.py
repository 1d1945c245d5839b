"""What happens in a run, drawn from its seed beforehand: so a failing run can be shrunk by leaving parts of it out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

Kind = Literal["plain", "flaky", "poison", "slow", "hangs", "kills", "skipped", "later"]
"""What the handler does with an event.

`flaky` fails a few times, `poison` until a person replays it, `hangs` and `kills` its process a few times, `later`
emits with a delay.
"""
FaultKind = Literal[
    "crash",
    "freeze",
    "leave",
    "reset",
    "reset in commit",
    "freeze in commit",
    "postgres restarts",
    "postgres is down",
    "postgres is restored",
    "brokers are down",
    "expel",
    "shuffle",
    "client dies",
    "open transaction",
    "aborted records",
    "clock jumps",
    "pause",
    "replay",
    "leave in claim",
    "shuffle in claim",
]
FAULTS: dict[FaultKind, int] = {
    "crash": 6,
    "freeze": 5,
    "leave": 4,
    "reset": 4,
    "reset in commit": 6,
    "freeze in commit": 3,
    "postgres restarts": 1,
    "postgres is down": 1,
    "postgres is restored": 4,
    "brokers are down": 1,
    "expel": 3,
    "shuffle": 3,
    "client dies": 1,
    "open transaction": 2,
    "aborted records": 2,
    "clock jumps": 1,
    "pause": 1,
    "replay": 2,
}
"""The kinds, with how often each is drawn."""
KINDS: dict[Kind, int] = {
    "plain": 56,
    "flaky": 8,
    "poison": 3,
    "slow": 3,
    "hangs": 1,
    "kills": 1,
    "skipped": 3,
    "later": 12,
}
IN_CLAIMS: tuple[FaultKind, ...] = ("leave in claim", "shuffle in claim")
"""What ends an owner that has just begun, while everything is slow: it has taken the claim, and has not yet published
what the one before it left."""
CLAIMED = 0.3
"""How many of the runs have these."""
ALWAYS = 1_000
STYLES = ("async", "sync", "transaction")
LISTS = 0.15
"""How many of the runs have batch handlers in place of one of these."""
SINKS = ("state", "state", "state", "lists", "windows", "expiring", "effects")
"""What the emits come to; see `sinks.py`."""


@dataclass(frozen=True)
class PlannedEvent:
    """An event of the stream."""

    at: float
    page: str
    number: int
    kind: Kind
    times: int = 0
    """How often it fails, or how many seconds it takes."""
    copies: tuple[float, ...] = ()
    """When it is published again."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong. `steps` counts steps of the process from then on, so that any await is reached."""

    at: float
    kind: FaultKind
    target: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A run. `seed` also decides the order of steps and what messages take."""

    seed: int
    style: str = "async"
    sink: str = "state"
    processes: int = 1
    partitions: int = 1
    events: tuple[PlannedEvent, ...] = ()
    faults: tuple[Fault, ...] = ()
    latency: float = 0.001
    publish_failures: float = 0.0
    batch_records: int = 100
    window_ids: int = 1000
    cache_keys: int = 100
    outage_keys: int = 0
    emits_pending: int = 1000
    stop_at_end: bool = False
    late_seconds: float = 0.0
    """How much later an event of the numbered stream may come than one behind it; 0: there is no such stream."""


@dataclass
class Shape:
    """How large the runs are that are drawn."""

    seconds: float = 300.0
    processes: tuple[int, int] = (1, 4)
    partitions: tuple[int, int] = (1, 3)
    events: tuple[int, int] = (20, 120)
    faults: tuple[int, int] = (0, 12)
    kinds: dict[Kind, int] = field(default_factory=lambda: dict(KINDS))
    fault_kinds: dict[FaultKind, int] = field(default_factory=lambda: dict(FAULTS))


LARGE = Shape()
SMALL = Shape(seconds=75.0, events=(5, 30), faults=(0, 4))
"""A third of the processor time of a large one. In as much time, both find a mistake about as often."""


def _times(kind: Kind, chance: Random) -> int:
    return chance.choice((1, 2, ALWAYS)) if kind == "kills" else chance.randint(1, 3)


def _in_claims(seed: int, shape: Shape) -> list[Fault]:
    """Return the faults of claims, drawn apart from all others."""
    chance = Random(f"claims {seed}")
    if not shape.faults[1] or chance.random() >= CLAIMED:
        return []
    times = [chance.uniform(0, shape.seconds) for _ in range(chance.randint(1, 6))]
    return [
        Fault(at, chance.choice(IN_CLAIMS), 0, chance.randrange(8), chance.choice((0.0, 6.0, 20.0))) for at in times
    ]


def draw(seed: int, shape: Shape = LARGE) -> Plan:
    """Return the plan of a seed."""
    chance = Random(f"plan {seed}")
    pages = [f"page-{number}" for number in range(chance.randint(1, 8))]
    clean = chance.random() < 0.3
    kinds: dict[Kind, int] = {"plain": 1} if clean else shape.kinds
    drawn = chance.choices(list(kinds), list(kinds.values()), k=chance.randint(*shape.events))
    times = sorted(chance.uniform(0, shape.seconds) for _ in drawn)
    if chance.random() < 0.5:  # bursts, so that batches are large
        times = sorted(chance.choice(times[:: len(times) // 6 + 1]) for _ in drawn)
    last: dict[str, int] = {}
    events = []
    for at, kind in zip(times, drawn, strict=True):
        page = chance.choice(pages)
        last[page] = number = last.get(page, 0) + 1
        copies = tuple(at + chance.expovariate(0.2) for _ in range(chance.choice((0, 0, 0, 0, 0, 0, 1, 2))))
        events.append(PlannedEvent(at, page, number, kind, _times(kind, chance), copies))
    chosen = chance.choices(list(shape.fault_kinds), list(shape.fault_kinds.values()), k=chance.randint(*shape.faults))
    faults = [
        Fault(
            chance.uniform(0, shape.seconds),
            kind,
            chance.randrange(100),
            chance.choice((0, chance.randrange(40), chance.randrange(400))),
            chance.choice((0.01, 0.5, 3.0, 8.0, 20.0)) * chance.uniform(0.5, 1.5),
        )
        for kind in chosen
    ]
    faults += _in_claims(seed, shape)
    drawn_plan = Plan(
        seed=seed,
        style=chance.choice(STYLES),
        processes=chance.randint(*shape.processes),
        partitions=chance.randint(*shape.partitions),
        events=tuple(events),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        latency=chance.choice((0.0005, 0.002, 0.02)),
        publish_failures=chance.choice((0.0, 0.0, 0.1, 0.4)),
        batch_records=chance.choice((2, 10, 1000)),
        window_ids=1000,
        cache_keys=chance.choice((1, 3, 1000)),
        outage_keys=chance.choice((0, 0, 3)),
        emits_pending=chance.choice((3, 1000)),
        stop_at_end=chance.random() < 0.3,
        late_seconds=chance.choice((0.0, 0.0, 0.0, 3.0, 60.0)),
    )
    style = "lists" if chance.random() < LISTS else drawn_plan.style
    return replace(drawn_plan, style=style, sink=chance.choice(SINKS))
