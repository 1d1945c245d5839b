"""I12: what a batch counts as applied, skipped, parked and dead is what the log has between its offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.checkers.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation
    from tests.simulation.store.transaction import Transaction


def check_counts(simulation: Simulation, transaction: Transaction) -> None:
    """Compare the counts of a batch with the log. Raises: Violation."""
    for (table, key), row in transaction.written.items():
        if table != "ledger" or row is None or row["kind"] != 0:
            continue
        places = simulation.broker.topics[key[1]][key[2]].places[row["first_offset"] : row["next_offset"]]
        records = sum(place is not None for place in places)
        counted = row["applied"] + row["skipped"] + row["parked"] + row["dead"]
        if counted != records:
            raise Violation(
                "I12 counters add up", f"row {key[3]} of {key[:3]} counts {counted} events of {records} records"
            )
