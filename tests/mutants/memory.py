"""Mistakes about what an owner keeps in memory."""

from __future__ import annotations

from dataclasses import replace

from tests.mutants.hunts import QUIET, SENT_BACK, TAKEN_OVER, TROUBLED, TROUBLED_AND_TAKEN_OVER, WENT_BACK
from tests.mutants.mutant import Hunt, Mutant, Patch

BATCH = "app/headrace/engine/batch.py"
TENURE = "app/headrace/engine/tenure.py"
TRANSACT = "app/headrace/engine/transact.py"
WINDOW = "app/headrace/ledger/window.py"
LANES = "app/headrace/engine/lanes.py"
ENVELOPE = "app/headrace/envelope.py"
MEMORY_FILE = "app/headrace/engine/memory.py"

_UNAVAILABLE = """                processor.undo(batch)
                processor.reporter.rerun("infrastructure", error)
"""

MEMORY = (
    Mutant(
        "window is not loaded at the claim",
        (Patch(WINDOW, "    for ids, marks, at in reversed(packed):\n", "    for ids, marks, at in ():\n"),),
        hunt=TAKEN_OVER,
    ),
    Mutant(
        "window is one batch short",
        (
            Patch(
                WINDOW,
                "wanted, before, rows_wanted = limit * IDENTITY_BYTES, sequence + 1, FEW_ROWS",
                "wanted, before, rows_wanted = limit * IDENTITY_BYTES, sequence, FEW_ROWS",
            ),
        ),
        hunt=Hunt(("kill", "leave"), events=4_000, faults=5),
    ),
    Mutant(
        "identity without the source",
        (
            Patch(
                ENVELOPE,
                "    begun = (_begun.get((source, type)) or _begin(source, type)).copy()\n",
                '    begun = _begin("", type).copy()\n',
            ),
        ),
        hunt=QUIET,
    ),
    Mutant(
        "identity of few bits (8 in place of 64, so that it shows in few events)",
        (
            Patch(
                ENVELOPE,
                "    return begun.digest()\n",
                "    return begun.digest()[:1] * 16\n",
            ),
        ),
        hunt=QUIET,
    ),
    Mutant(
        "cache is kept after a rollback",
        (
            Patch(
                BATCH,
                "                cache.forget(keys)\n",
                "                pass\n",
            ),
        ),
        hunt=TROUBLED,
    ),
    Mutant(
        "cache is kept over a lost claim",
        (
            Patch(
                TENURE,
                "        self.holdings: dict[str, Holding] = {}\n",
                '        self.memory.caches = orders.__dict__.setdefault("caches", self.memory.caches)\n'
                "        self.holdings: dict[str, Holding] = {}\n",
            ),
        ),
        hunt=replace(WENT_BACK, shares={"echoes": 0.3, "reminds": 0.1}),
    ),
    Mutant(
        "cache is kept after a lost connection",
        (Patch(TRANSACT, _UNAVAILABLE, '                processor.reporter.rerun("infrastructure", error)\n'),),
        hunt=SENT_BACK,
    ),
    Mutant(
        "lanes are not loaded at the claim",
        (
            Patch(
                LANES,
                "        self.by_key = {}\n        for row in rows:\n",
                "        self.by_key = {}\n        for row in ():\n",
            ),
        ),
        hunt=TROUBLED_AND_TAKEN_OVER,
    ),
    Mutant(
        "what was committed does not enter the window",
        (Patch(MEMORY_FILE, ".add(effects.identities, effects.marks, ", ".add((), (), "),),
        hunt=replace(QUIET, events=4_000),
    ),
    Mutant(
        "numbers of parked events begin anew at the claim",
        (
            Patch(
                LANES,
                "        self.next_number = max(numbers, default=0) + 1\n",
                "        self.next_number = 1\n",
            ),
        ),
        hunt=TROUBLED_AND_TAKEN_OVER,
    ),
)
