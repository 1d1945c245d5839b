"""What reaches mistakes on real servers: short runs of the faults, points and events that matter to each kind."""

from __future__ import annotations

from tests.crash.plan import PUT_BACK
from tests.mutants.mutant import Hunt

QUIET = Hunt(events=1_200, workers=1, partitions=1)
"""Copies and a few failing events, and no fault at all."""
TROUBLED = Hunt(events=1_200, workers=1, partitions=1, shares={"fail": 0.02, "reject": 0.01, "echoes": 0.3})
"""Events that fail the first time, while others of their keys follow."""
TAKEN_OVER = Hunt(("kill", "freeze", "leave"), faults=3)
"""Partitions that change their owners."""
TROUBLED_AND_TAKEN_OVER = Hunt(
    ("kill", "freeze", "die at a point"),
    ("events are parked", "a lane's run is counted", "a lane is closed"),
    faults=3,
    shares={"fail": 0.02, "reject": 0.005},
)
"""Lanes whose owners change."""
DOOMED = Hunt(("die in a lane",), events=1_500, faults=1)
"""An event that ends each process that runs it."""
WENT_BACK = Hunt((PUT_BACK,), faults=3)
"""A database that is an earlier one."""
LOST_ANSWER = Hunt(("lose the answer to COMMIT",), faults=3)
LOST_COMMIT = Hunt(("lose COMMIT",), faults=3)
"""Transactions whose outcome is unknown."""
SENT_BACK = Hunt(("lose COMMIT", "deadlock", "end sessions", "reset Postgres"), faults=3)
"""Transactions that are rolled back, while their owner goes on."""


def frozen_at(*points: str) -> Hunt:
    """Return runs whose processes are frozen at these points until others have what they held."""
    return Hunt(("freeze at a point",), points, faults=3)


def dead_at(*points: str, **shares: float) -> Hunt:
    """Return runs whose processes die at these points, with so many events of a kind."""
    return Hunt(("die at a point",), points, faults=3, shares=shares)
