"""I3 for a subscription in sequence: a page has the numbers 1, 2, 3 at any time, and all of them in the end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.simulation.checkers.applied import log_order, numbers_by_page
from tests.simulation.checkers.violation import Violation
from tests.simulation.service import GROUPS

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation
    from tests.simulation.store.transaction import Transaction


def check_steps_of_commit(simulation: Simulation, transaction: Transaction) -> None:
    """Refuse numbers that are not in sequence. Raises: Violation."""
    for (table, key), row in transaction.written.items():
        if table == "state" and row is not None and key[:2] == (GROUPS["steps"], "steps"):
            numbers = json.loads(row["data"])["numbers"]
            if numbers != list(range(1, len(numbers) + 1)):
                raise Violation("I3 in sequence", f"{key[2]} has {numbers}")


def check_steps(simulation: Simulation) -> None:
    """Compare what was applied with the stream. Raises: Violation."""
    applied = numbers_by_page(simulation, "steps")
    for page, order in log_order(simulation, "steps").items():
        if (numbers := applied.get(page, [])) != sorted(order):
            raise Violation("I1 nothing is lost in sequence", f"{page} has {numbers} in place of {sorted(order)}")
