"""The invariants, each in a function of its own that is given the evidence of a run and yields what is violated.

| invariant | checked in |
| --- | --- |
| I1 nothing accepted is lost, I2 applied once, I3 in order per key | `applied.py`; what was posted: `posted.py` |
| I4 an event of a handler, timer, window, outbox is in the log if and only if its cause committed | `emitted.py` |
| I5 the ledger's ranges are contiguous and end at the claim, I12 its counts are those of the log | `ledger.py` |
| I6 a claim never goes back, I7 nobody but its owner moves it | `claims.py` |
| I7 nobody is fenced, I1 nothing is refused for nothing, I12 an attempt counts once, before it runs | `steady.py` |
| I8 calls to the outside are made for what is applied, in order, with one key; kept answers are used | `outside.py` |
| I9 what owners remember is what Postgres has: a last wave, then I1 to I3 | `memory.py`, `applied.py` |
| I10 nothing stays stuck | `../settling.py`, `../machine.py` |
| I11 memory and connections are bounded | `bounds.py` |
| sagas end as they should, and do everything once | `sagas.py` |
| the platform's own audit | `audit.py` |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.crash.checkers.applied import (
    check_accepted,
    check_applied,
    check_begun,
    check_dead_letters,
    check_recent,
    check_sided,
)
from tests.crash.checkers.audit import check_audit
from tests.crash.checkers.bounds import check_bounds
from tests.crash.checkers.claims import check_claims
from tests.crash.checkers.emitted import check_bookings, check_commits, check_emitted, check_windows
from tests.crash.checkers.ledger import check_counts, check_ledger
from tests.crash.checkers.memory import check_memory
from tests.crash.checkers.outside import check_calls
from tests.crash.checkers.posted import check_posted
from tests.crash.checkers.sagas import check_sagas
from tests.crash.checkers.steady import (
    check_attempts,
    check_counted_deaths,
    check_deaths,
    check_fenced,
    check_refused,
)
from tests.crash.checkers.violation import Violation
from tests.crash.evidence import Evidence

CHECKERS: tuple[Callable[[Evidence], Iterable[Violation]], ...] = (
    check_accepted,
    check_posted,
    check_applied,
    check_recent,
    check_sided,
    check_dead_letters,
    check_emitted,
    check_commits,
    check_windows,
    check_bookings,
    check_calls,
    check_sagas,
    check_ledger,
    check_counts,
    check_claims,
    check_fenced,
    check_refused,
    check_deaths,
    check_attempts,
    check_counted_deaths,
    check_memory,
    check_bounds,
    check_audit,
)
AT_ANY_TIME: tuple[Callable[[Evidence], Iterable[Violation]], ...] = (
    check_begun,
    check_commits,
    check_ledger,
    check_claims,
    check_fenced,
    check_refused,
    check_deaths,
    check_attempts,
    check_counted_deaths,
    check_bounds,
    check_audit,
)
"""What holds of a run as well that got stuck: no process runs any more when they look."""
