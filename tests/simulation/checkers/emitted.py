"""I4: an emit is in the log if and only if its event was applied, under one id."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.cloudevents import decode_record
from tests.simulation.checkers.applied import log_order, numbers_by_page
from tests.simulation.checkers.violation import Violation
from tests.simulation.history import emit_ids
from tests.simulation.service import LATER

if TYPE_CHECKING:
    from headrace.log.ports import NewRecord
    from tests.simulation.simulation import Simulation
    from tests.simulation.store.transaction import Transaction


def check_append(simulation: Simulation, records: Sequence[NewRecord]) -> None:
    """Refuse an emit whose event was never committed. Raises: Violation."""
    for record in records:
        if record.topic == "echoes":
            envelope, value = decode_record(record)
            if envelope.type != "echoed":
                continue
            data = json.loads(value)
            place = (data["page"], data["number"] % LATER)
            if place not in simulation.history.applied:
                raise Violation("I4 emits need a commit", f"{place} is emitted before its event was committed")


def check_emits_of_commit(simulation: Simulation, transaction: Transaction) -> None:
    """Refuse a second commit of the same emit. Raises: Violation."""
    for (table, key), row in transaction.written.items():
        if table == "ledger" and row is not None:
            for id_ in emit_ids(row):
                if id_ in simulation.history.emitted:
                    raise Violation("I4 an emit is committed once", f"row {key[3]} of {key[:3]} emits {id_} again")


def check_emitted(simulation: Simulation) -> None:
    """Compare the log of emits with the states. Raises: Violation."""
    ids: dict[tuple[str, int], set[str]] = {}
    for partition in simulation.broker.topics["echoes"]:
        for record in partition.places:
            if record is not None:
                envelope, value = decode_record(record)
                if envelope.type != "echoed":
                    continue
                data = json.loads(value)
                ids.setdefault((data["page"], data["number"]), set()).add(envelope.id)
    for place, known in ids.items():
        if len(known) > 1:
            raise Violation("I4 emits have one id", f"{place} was emitted as {sorted(known)}")
    applied = numbers_by_page(simulation, "notes")
    expected = set()
    for page, numbers in applied.items():
        expected |= {(page, number) for number in numbers}
        expected |= {
            (page, LATER + number) for number in numbers if simulation.world.plans[page, number].kind == "later"
        }
    if missing := expected - ids.keys():
        raise Violation("I4 emits leave", f"applied and never emitted: {sorted(missing)}")
    surplus = ids.keys() - expected
    if surplus and not simulation.restores:  # what a lost future has emitted stays in the log
        raise Violation("I4 emits need a commit", f"emitted and never applied: {sorted(surplus)}")
    if not simulation.restores:
        _check_order(simulation, applied)


def _check_order(simulation: Simulation, applied: dict[str, list[int]]) -> None:
    for page, order in log_order(simulation, "echoes").items():
        at_once = [number for number in order if number < LATER]
        if at_once != applied.get(page, []):
            raise Violation("I3 order of emits", f"{page} was emitted as {at_once}, applied as {applied.get(page)}")
