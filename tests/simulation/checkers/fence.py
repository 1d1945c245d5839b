"""I7: nobody but the owner of the claim commits: a zombie's write is never visible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.log.partitioner import partition_for
from tests.simulation.checkers.violation import Violation
from tests.simulation.service import GROUPS

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation
    from tests.simulation.store.transaction import Transaction

GUARDED = ("state", "lane", "parked", "ledger", "timer", "effect", "journal")
TOPICS = {group: topic for topic, group in GROUPS.items()}


def check_fence(simulation: Simulation, transaction: Transaction) -> None:
    """Refuse what a process writes that does not hold the claim. Raises: Violation."""
    process = transaction.session.process
    if process is None:
        return
    is_answer = all(table == "step" for table, _ in transaction.written)  # on its way when its call was cut short
    may_be_late = is_answer or transaction.session.is_unheard
    if not may_be_late and any(pod.process is process and pod.has_stopped for pod in simulation.pods):
        raise Violation("I7 who has stopped commits nothing", f"{process.name} commits after its stop")
    for (table, key), row in transaction.written.items():
        if table not in GUARDED or (table == "effect" and row is not None and row["attempts"]):
            continue  # a claim may count a death, and then be lost
        kept = row or simulation.server.tables.get(table, key)
        if kept is None:
            continue
        group = kept.get("subscription", GROUPS["notes"])
        number = kept.get("partition")
        if number is None:
            number = partition_for(kept["page"].encode(), simulation.plan.partitions)
        place = (group, TOPICS[group], number)
        claim = transaction.written.get(("claim", place)) or simulation.server.tables.get("claim", place)
        owner = claim["owner"] if claim is not None else None
        if owner not in (None, process.name):
            raise Violation("I7 the fence holds", f"{process.name} wrote {table} {key}, which belongs to {owner}")
