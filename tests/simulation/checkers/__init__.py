"""The invariants, each in a module of its own: those that hold at each commit, and those that hold when all is quiet.

| invariant | checked in |
| --- | --- |
| I1 nothing accepted is lost, I2 applied once, I3 in order per key | `applied.py` |
| I4 an emit is in the log if and only if its event was applied, under one id | `emitted.py` |
| I5 ledger rows are contiguous and end at the claim, I6 a claim never goes back | `ledger.py` |
| I7 nobody but the owner of the claim commits | `fence.py` |
| I9 what an owner keeps in memory is what Postgres has | `memory.py` |
| I10 after the last fault all comes to its end | `simulation.py` |
| I12 the counts of a batch are those of its records | `counts.py` |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.checkers.applied import check_applied
from tests.simulation.checkers.counts import check_counts
from tests.simulation.checkers.emitted import check_emitted
from tests.simulation.checkers.fence import check_fence
from tests.simulation.checkers.ledger import check_claims, check_ledger, check_whole_ledger
from tests.simulation.checkers.memory import check_memory

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation
    from tests.simulation.store.transaction import Transaction

AT_COMMIT: tuple[Callable[[Simulation, Transaction], None], ...] = (
    check_fence,
    check_claims,
    check_ledger,
    check_counts,
)
AT_END: tuple[Callable[[Simulation], None], ...] = (
    check_applied,
    check_emitted,
    check_whole_ledger,
    check_memory,
)
