"""The figures of one run, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from tests.crash.checkers.violation import Violation
from tests.crash.run import Result


class Figures(msgspec.Struct, frozen=True):
    """What is counted of a run."""

    seed: int
    again: str
    """The command that runs the seed again."""
    events: int
    applied: int
    """Offsets of the lists' topic, copies and malformed records among them."""
    seconds: float
    events_per_second: float
    settled_seconds: float
    faults: int
    missed: int
    """Faults that found nothing to hit."""
    faults_by_kind: dict[str, int]
    faults_by_point: dict[str, dict[str, int]]
    """By crash point, and then by kind."""
    zombie_rejections: dict[str, int]
    """Proven ones, by kind and point: the statement is in the server's log, and the claim has not changed."""
    dead_letters: int
    parked: int
    calls: int
    """To the outside, repeated ones among them."""
    sagas: int
    bookings: int
    posted: int
    """Events that a worker has answered with 202."""
    transactions: int
    largest_megabytes: float
    most_connections: int
    extras: dict[str, int]
    violations: list[str]
    violation_count: int


MOST_VIOLATIONS = 8
"""Of one invariant that are shown."""


def figures(result: Result) -> Figures:
    """Count."""
    history, evidence, plan = result.history, result.evidence, result.plan
    done = [fault for fault in history.faults if fault.is_done]
    points: dict[str, Counter[str]] = {}
    zombies = Counter[str]()
    for fault in done:
        if fault.point:
            points.setdefault(fault.point, Counter())[fault.kind] += 1
        zombies[f"{fault.kind}: {fault.point}" if fault.point else fault.kind] += fault.zombies
    ledger = evidence.ledger if evidence is not None else []
    samples = history.samples
    return Figures(
        seed=plan.seed,
        again=again(result),
        events=history.sent.acknowledged,
        applied=samples[-1].applied if samples else 0,
        seconds=round(history.seconds, 1),
        events_per_second=round(history.sent.acknowledged / history.seconds, 1) if history.seconds else 0.0,
        settled_seconds=round(history.settled_seconds, 1),
        faults=len(done),
        missed=len(history.faults) - len(done),
        faults_by_kind=dict(Counter(fault.kind for fault in done)),
        faults_by_point={point: dict(kinds) for point, kinds in sorted(points.items())},
        zombie_rejections={name: count for name, count in sorted(zombies.items()) if count},
        dead_letters=evidence.dead.total() if evidence is not None else 0,
        parked=sum(row.parked for row in ledger),
        calls=len(evidence.calls) if evidence is not None else 0,
        sagas=len(evidence.sagas) if evidence is not None else 0,
        bookings=history.sent.booked,
        posted=history.sent.extras["posted"],
        transactions=len(ledger),
        largest_megabytes=round(max((sample.largest_bytes for sample in samples), default=0) / 1e6, 1),
        most_connections=max((sample.connections for sample in samples), default=0),
        extras=dict(history.sent.extras),
        violations=_shown(result.violations),
        violation_count=len(result.violations),
    )


def again(result: Result) -> str:
    """Return the command that runs the seed once more."""
    plan = result.plan
    options = f"--seed {plan.seed}" + (f" --workers {plan.workers}" if plan.workers != 3 else "")
    options += f" --partitions {plan.partitions}" if plan.partitions != 6 else ""
    for name, chosen in (("kinds", plan.kinds), ("points", plan.points)):
        if chosen:
            options += f" --{name} " + " ".join(f"'{each}'" for each in chosen)
    options += f" --patience {plan.patience:g}" if plan.patience != 180 else ""
    if plan.shares:
        options += " --shares " + ",".join(f"{name}={share}" for name, share in plan.shares.items())
    brokers = f" BROKERS={plan.brokers}" if plan.brokers != 1 else ""
    return f'make crash EVENTS={plan.events} FAULTS={len(plan.steps)}{brokers} ARGS="{options}"'


def _shown(violations: Sequence[Violation]) -> list[str]:
    count = Counter[str]()
    shown = []
    for each in violations:
        count[each.invariant] += 1
        if count[each.invariant] <= MOST_VIOLATIONS:
            shown.append(f"{each.invariant}: {each.text}")
    return [*shown, *(f"{name}: {total} in all" for name, total in count.items() if total > MOST_VIOLATIONS)]
