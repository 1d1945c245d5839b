"""I3: while events of a key wait in its lane, nothing of the key is applied but what leaves the lane.

I1: a key has a lane as long as events of it wait, so that none of them is forgotten.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.simulation.checkers.violation import Violation
from tests.simulation.service import GROUPS, place_of

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation
    from tests.simulation.store.tables import Key, Values
    from tests.simulation.store.transaction import Transaction


STATES = {(GROUPS[name], name) for name in ("notes", "steps")}
"""The (group, state) pairs whose numbers tell what was applied."""


def check_lanes(simulation: Simulation, transaction: Transaction) -> None:
    """Compare what is applied to a page with what waits for it. Raises: Violation."""
    for (table, key), row in transaction.written.items():
        if table == "state" and row is not None and key[:2] in STATES:
            _check_page(simulation, transaction, key, row)


def check_parked(simulation: Simulation, transaction: Transaction) -> None:
    """Compare the lanes that are written with the events that wait in them. Raises: Violation."""
    changed = {key[:3] for table, key in transaction.written if table in ("lane", "parked")}
    for group, number, key in sorted(changed):
        has_lane = transaction.get("lane", (group, number, key)) is not None
        waiting = [row for row in transaction.group("parked", group, number) if row["key"] == key]
        if has_lane != bool(waiting):
            lane = "a lane" if has_lane else "no lane"
            raise Violation("I1 who waits has a lane", f"{key.decode()} has {lane}, and {len(waiting)} events wait")


def _check_page(simulation: Simulation, transaction: Transaction, key: Key, row: Values) -> None:
    tables = simulation.server.tables
    parked = tables.group("parked", (row["subscription"], row["partition"]))
    waiting = {place: each for place, each in parked.items() if each["key"] == row["key"].encode()}
    if not waiting:
        return
    before = tables.get("state", key)
    known = set(json.loads(before["data"])["numbers"]) if before is not None else set()
    applied = set(json.loads(row["data"])["numbers"]) - known
    leaving = {
        place_of(each["source"], each["event_id"])[1]
        for place, each in waiting.items()
        if transaction.written.get(("parked", place), each) is None
    }
    if overtaking := applied - leaving:
        raise Violation("I3 order per key", f"{row['key']}: {sorted(overtaking)} are applied while others wait")
