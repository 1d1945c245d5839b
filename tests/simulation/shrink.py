"""Makes a failing plan small: leaves out faults, events and processes as long as the same invariant is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from tests.simulation.plan import Plan
from tests.simulation.simulation import simulate

T = TypeVar("T")


def shrink(plan: Plan, invariant: str, runs: int = 300) -> Plan:
    """Return the smallest plan that was found in so many runs."""
    left = iter(range(runs))

    def fails(candidate: Plan) -> bool:
        if next(left, None) is None:
            return False
        violation = simulate(candidate).violation
        return violation is not None and violation.invariant == invariant

    while True:
        before = plan
        plan = replace(plan, faults=_fewer(plan.faults, partial(_fails_with, fails, plan, "faults")))
        plan = replace(plan, events=_fewer(plan.events, partial(_fails_with, fails, plan, "events")))
        for smaller in _simpler(plan):
            if fails(smaller):
                plan = smaller
                break
        if plan == before:
            return plan


def _fails_with(fails: Callable[[Plan], bool], plan: Plan, part: str, kept: tuple[Any, ...]) -> bool:
    changed: dict[str, Any] = {part: kept}
    return fails(replace(plan, **changed))


def _fewer(items: tuple[T, ...], fails: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """Leave out parts, the large ones first."""
    size = len(items)
    while size > 0:
        at = 0
        while at < len(items):
            kept = items[:at] + items[at + size :]
            if fails(kept):
                items = kept
            else:
                at += size
        size //= 2
    return items


def _simpler(plan: Plan) -> Iterator[Plan]:
    """Offer plans that are easier to read."""
    options: Sequence[dict[str, Any]] = (
        {"processes": plan.processes - 1},
        {"partitions": 1},
        {"publish_failures": 0.0},
        {"stop_at_end": False},
        {"style": "async"},
        {"outage_keys": 0},
    )
    for option in options:
        smaller = replace(plan, **option)
        if smaller != plan and smaller.processes > 0:
            yield smaller
