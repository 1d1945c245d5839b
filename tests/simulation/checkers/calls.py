"""I8, I12: what an owner calls, and what it counts, while it calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.checkers.violation import Violation
from tests.simulation.loop import PROCESS
from tests.simulation.service import GROUPS

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation
    from tests.simulation.sinks import Call
    from tests.simulation.store.tables import Values
    from tests.simulation.store.transaction import Transaction

GROUP = GROUPS["echoes"]


def check_call(simulation: Simulation, call: Call) -> None:
    """Refuse a call for what is not committed, and of an owner one that its answers or its order do not allow.

    Raises: Violation.
    """
    place, tables, history = (call.page, call.number), simulation.server.tables, simulation.history
    found = history.started.get(place)
    if found is None:
        raise Violation("I8 effects need a commit", f"{place} is told before its event was committed")
    claimed = (GROUP, "echoes", found.partition)
    claim, process = tables.get("claim", claimed), PROCESS.get()
    if simulation.restores or claim is None or process is None or claim["owner"] != process.name:
        return
    is_kept = tables.get("step", (GROUP, found.identity, "call")) is not None
    kept = history.answers.get(found.identity)
    is_late = kept is not None and kept.process is not process and kept.commit > history.owned_since.get(claimed, 0)
    if call.what == "step" and is_kept and not is_late:  # the owner may have looked before a former one has kept it
        raise Violation("I8 answers are remembered", f"{place} is called again, though its answer is kept")
    if call.what == "tell" and not is_kept:
        raise Violation("I8 answers are kept", f"{place} goes on behind a step whose answer is not kept")
    before = history.called.get((claim["token"], call.page), found)
    if found.order < before.order:
        raise Violation("I3 order of calls", f"{place} is called behind a later call of its page")
    history.called[claim["token"], call.page] = found


def check_counted_deaths(simulation: Simulation, transaction: Transaction) -> None:
    """Refuse attempts of calls that are counted for a death, if no owner has died. Raises: Violation."""
    tables, deaths = simulation.server.tables, simulation.history.deaths
    for (table, key), row in transaction.written.items():
        if table == "claim" and row is not None and key[0] == GROUP:
            before = tables.get("claim", key)
            if before is not None and None is not before["owner"] != row["owner"] is not None:
                deaths[row["owner"], key[2]] += 1
    counted = {
        row["partition"]
        for (table, key), row in transaction.written.items()
        if table == "effect" and row is not None and _is_counted(tables.get("effect", key), row)
    }
    if (process := transaction.session.process) is None:
        return
    for partition in counted:
        deaths[process.name, partition] -= 1
        if deaths[process.name, partition] < 0:
            raise Violation("I12 a death counts", f"{process.name} counts attempts in {partition}, and nobody has died")


def _is_counted(before: Values | None, row: Values) -> bool:
    """True if an attempt is counted, and not because the call has failed."""
    if before is None or row["attempts"] <= before["attempts"]:
        return False
    return bool((row["due"], row["error"]) == (before["due"], before["error"]))
