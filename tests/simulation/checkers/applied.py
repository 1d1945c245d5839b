"""I1, I2, I3: each event is applied once and in order, or is a dead letter, or was skipped as it asked."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from headrace.cloudevents import decode_record
from tests.simulation.checkers.violation import Violation
from tests.simulation.service import GROUPS, place_of

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

Place = tuple[str, int]
"""(page, number)."""


def numbers_by_page(simulation: Simulation, subscription: str) -> dict[str, list[int]]:
    """Return what a subscription has applied to each page."""
    rows = simulation.server.tables.group("state", (GROUPS[subscription], subscription)).values()
    return {row["key"]: json.loads(row["data"])["numbers"] for row in rows}


def log_order(simulation: Simulation, topic: str) -> dict[str, list[int]]:
    """Return the numbers of each page in the order in which they first came into the log."""
    found: dict[str, list[int]] = {}
    for partition in simulation.broker.topics[topic]:
        for record in partition.places:
            if record is not None:
                envelope, value = decode_record(record)
                if envelope.type not in ("noted", "echoed", "stepped"):
                    continue
                data = json.loads(value)
                numbers = found.setdefault(data["page"], [])
                if data["number"] not in numbers:
                    numbers.append(data["number"])
    return found


def check_applied(simulation: Simulation) -> None:
    """Compare what was applied with the stream. Raises: Violation."""
    applied = numbers_by_page(simulation, "notes")
    dead = dead_letters(simulation)
    for page, order in log_order(simulation, "notes").items():
        numbers = applied.get(page, [])
        for number, times in Counter(numbers).items():
            if times > 1:
                raise Violation("I2 applied once", f"{page} has number {number} {times} times: {numbers}")
        for number in order:
            _check_end(simulation, (page, number), number in numbers, dead.get((page, number)))
        given_up = [number for number in order if (page, number) in dead]
        check_order(page, [n for n in numbers if n not in given_up], order)
    _check_journal(simulation, applied)


def check_order(page: str, numbers: list[int], order: list[int]) -> None:
    """Refuse numbers that are not in the order of the log. Raises: Violation."""
    expected = [number for number in order if number in numbers]
    if numbers != expected:
        raise Violation("I3 order per key", f"{page} has {numbers} in place of {expected}")


def _check_end(simulation: Simulation, place: Place, is_applied: bool, is_open: bool | None) -> None:
    kind = simulation.world.plans[place].kind
    if kind == "skipped":
        if is_applied:
            raise Violation("I1 nothing silent", f"{place} asked to be skipped and was applied")
        return
    if is_applied and is_open:
        raise Violation("I1 nothing silent", f"{place} is applied and an open dead letter")
    if not is_applied and not is_open:
        raise Violation("I1 nothing is lost", f"{place} ({kind}) is neither applied nor an open dead letter")
    counts = simulation.counts
    is_disturbed = counts["ended"] or counts["freeze"] or counts["freeze in commit"]
    if is_open and kind in ("plain", "flaky") and not is_disturbed:
        raise Violation("I1 nothing is given up for nothing", f"{place} ({kind}) is a dead letter")


def dead_letters(simulation: Simulation) -> dict[Place, bool]:
    """Return the events that were given up on, and whether they still are."""
    found: dict[Place, bool] = {}
    for row in simulation.server.tables.all("dead_letter"):
        if row["subscription"] == GROUPS["notes"]:
            place = place_of(row["source"], row["event_id"])
            if row["decision"] is None and found.get(place):
                raise Violation("I2 once", f"{place} is an open dead letter twice")
            found[place] = found.get(place, False) or row["decision"] is None
    return found


def _check_journal(simulation: Simulation, applied: dict[str, list[int]]) -> None:
    """Compare what handlers wrote with SQL of their own with the states."""
    if simulation.plan.style != "transaction":
        return
    written = Counter((row["page"], row["number"]) for row in simulation.server.tables.all("journal"))
    expected = Counter((page, number) for page, numbers in applied.items() for number in numbers)
    if written != expected:
        odd = (written - expected) or (expected - written)
        raise Violation("I2 applied once", f"the handlers' own table and the states differ in {dict(odd)}")
