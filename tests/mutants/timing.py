"""Mistakes about when timers fire."""

from __future__ import annotations

from tests.mutants.mutant import Hunt, Mutant, Patch

TIMER_SQL = "app/headrace/sql/timer.py"
TIMER_MODEL = "tests/simulation/store/statements/timer.py"
TIMERS = "app/headrace/engine/timers.py"

TIMING = (
    Mutant(
        "timers fire with the first that is due",
        (
            Patch(
                TIMER_SQL,
                "due_at <= (select clock_timestamp())\n        order by due_at limit $3 for update",
                "due_at is not null\n        order by due_at limit $3 for update",
            ),
        ),
        simulated=(
            Patch(TIMER_MODEL, 'if row["due_at"] <= now]\n        due.sort', "]\n        due.sort"),
            Patch(TIMER_MODEL, 'if kept is not None and kept["due_at"] <= now and', "if kept is not None and"),
        ),
        hunt=Hunt(events=6_000, workers=1, partitions=1, shares={"reminds": 0.2}),
    ),
)
"""The crash machine hunts these as well."""

DUE_ORDER = (
    Mutant(
        "timers that are due at a time fire in no order",
        (Patch(TIMERS, "timer.record) for timer in leaving]\n", "timer.record) for timer in reversed(leaving)]\n"),),
    ),
)
