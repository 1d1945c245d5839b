"""The invariants, each in a module of its own: looked at with each commit or publish, now and then, or at the end.

| invariant | checked in |
| --- | --- |
| I1 nothing accepted is lost, I2 applied once, I3 in order per key | `applied.py`, `lanes.py` |
| I3 in sequence, where a subscription asks for it | `sequence.py` |
| I4 an emit is in the log if and only if its event was applied, under one id | `emitted.py` |
| I1 to I3 for batch handlers, windows, expiring states and effects | `sinks.py` |
| I8 calls of effects follow commits, in order, and their answers are kept, I12 deaths count in them | `calls.py` |
| timers fire when they are due, in order | `timers.py` |
| I5 ledger rows are contiguous and end at the claim, I6 a claim never goes back | `ledger.py` |
| I7 nobody but the owner of the claim commits | `fence.py` |
| I9 what an owner keeps in memory is what Postgres has | `memory.py` |
| I10 after the last fault all comes to its end | `simulation.py` |
| I12 the counts of a batch are those of its records | `counts.py` |
| nothing is refused, fenced or ended for nothing | `steady.py` |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.simulation.checkers.applied import check_applied
from tests.simulation.checkers.calls import check_counted_deaths
from tests.simulation.checkers.counts import check_counts
from tests.simulation.checkers.emitted import check_append, check_emits_of_commit, check_emitted
from tests.simulation.checkers.fence import check_fence
from tests.simulation.checkers.lanes import check_lanes, check_parked
from tests.simulation.checkers.ledger import check_claims, check_ledger, check_whole_ledger
from tests.simulation.checkers.memory import check_memory
from tests.simulation.checkers.sequence import check_steps, check_steps_of_commit
from tests.simulation.checkers.sinks import check_expiry, check_sink
from tests.simulation.checkers.steady import check_deaths, check_workers
from tests.simulation.checkers.timers import check_fired

if TYPE_CHECKING:
    from headrace.log.ports import NewRecord
    from tests.simulation.simulation import Simulation
    from tests.simulation.store.transaction import Transaction

AT_COMMIT: tuple[Callable[[Simulation, Transaction], None], ...] = (
    check_fence,
    check_claims,
    check_ledger,
    check_counts,
    check_emits_of_commit,
    check_lanes,
    check_parked,
    check_steps_of_commit,
    check_expiry,
    check_counted_deaths,
    check_fired,
)
AT_APPEND: tuple[Callable[[Simulation, Sequence[NewRecord]], None], ...] = (check_append,)
NOW_AND_THEN: tuple[Callable[[Simulation], None], ...] = (check_workers, check_deaths)
AT_END: tuple[Callable[[Simulation], None], ...] = (
    check_applied,
    check_steps,
    check_emitted,
    check_sink,
    check_whole_ledger,
    check_memory,
)
