"""Timers fire when they are due and not before, the longest due first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cloudevents import decode_record
from headrace.log.stored import new_record
from tests.simulation.checkers.violation import Violation
from tests.simulation.history import emit_ids

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation
    from tests.simulation.store.tables import Values
    from tests.simulation.store.transaction import Transaction


def check_fired(simulation: Simulation, transaction: Transaction) -> None:
    """Compare the timers that a transaction fires with their times and with each other. Raises: Violation."""
    gone = [
        before
        for (table, key), row in transaction.written.items()
        if table == "timer" and row is None and (before := simulation.server.tables.get("timer", key)) is not None
    ]
    if not gone:
        return
    due_at = {_id(timer): timer["due_at"] for timer in gone}
    rows = [row for (table, _), row in transaction.written.items() if table == "ledger" and row is not None]
    fired = [(due_at[id_], id_) for row in rows for id_ in emit_ids(row) if id_ in due_at]
    if fired != sorted(fired, key=lambda each: each[0]):
        raise Violation("I3 order of timers", f"timers that were due at {[due for due, _ in fired]} fire in this order")
    has_jumped = any(fault.kind == "clock jumps" for fault in simulation.plan.faults)
    early = [id_ for due, id_ in fired if due > simulation.server.now()]
    if early and not has_jumped:
        raise Violation("I4 timers fire when they are due", f"these fire before: {early}")


def _id(timer: Values) -> str:
    record = new_record(timer["topic"], timer["key"], timer["value"], timer["headers"])
    return decode_record(record)[0].id
