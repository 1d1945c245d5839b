"""Mistakes about sagas, which the simulation has no part of: the crash machine hunts them."""

from __future__ import annotations

from tests.mutants.mutant import Hunt, Mutant, Patch

COURSE = "app/headrace/sagas/course.py"
_ORDERED = Hunt(events=1_200, workers=1, partitions=1, shares={"good": 0.1, "bad": 0.1})

SAGAS = (
    Mutant(
        "a saga that has failed undoes nothing",
        (Patch(COURSE, "        while kept.receipts:\n", "        while kept.receipts and kept.has_timed_out:\n"),),
        hunt=_ORDERED,
    ),
    Mutant(
        "what was done is undone in the order in which it was done",
        (Patch(COURSE, "kept.receipts.pop()", "kept.receipts.pop(0)"),),
        hunt=_ORDERED,
    ),
    Mutant(
        "the answer to an earlier step is taken for that of the one under way",
        (Patch(COURSE, ' or (kept.status == "running" and kept.step != step.name):\n        ', ":\n        "),),
        hunt=_ORDERED,
    ),
    Mutant(
        "a saga that has begun begins again",
        (Patch(COURSE, '        if kept.status != "new":\n', "        if kept.has_ended:\n"),),
        hunt=_ORDERED,
    ),
)
