"""Mistakes about lanes that run beside the batches of their partition."""

from __future__ import annotations

from tests.mutants.hunts import TROUBLED
from tests.mutants.mutant import Mutant, Patch

BATCH = "app/headrace/engine/batch.py"
MEMORY_FILE = "app/headrace/engine/memory.py"

_TURN = "            await self.take_turn(batch)\n            effects = self._settle(batch, run, states)\n"
_FORGET = "                cache.forget([row[0] for row in rows])  # what a lane has made of them is not known here\n"

LANES = (
    Mutant(
        "what waits behind a lane is decided when the batch is written",
        (
            Patch(BATCH, "            self.memory.lanes.hold_back(items)\n", "            pass\n"),
            Patch(
                BATCH,
                _TURN,
                "            await self.take_turn(batch)\n"
                "            for each in run.items if batch.kind is Kind.BATCH else ():\n"
                "                if each.outcome is Outcome.APPLIED and each.key in self.memory.lanes.by_key:\n"
                "                    each.outcome = Outcome.BEHIND_KEY\n"
                "            effects = self._settle(batch, run, states)\n",
            ),
        ),
        hunt=TROUBLED,
    ),
    Mutant(
        "what becomes of a run is decided before its turn",
        (
            Patch(
                BATCH,
                _TURN,
                "            claim = batch.holding.claim\n"
                "            if batch.kind is not Kind.BATCH:\n"
                "                batch.next_offset, batch.last = claim.next_offset, claim.last\n"
                "            effects = self._settle(batch, run, states)\n"
                "            await self.take_turn(batch)\n"
                "            if batch.kind is not Kind.BATCH:\n"
                "                effects.next_offset, effects.last = claim.next_offset, claim.last\n",
            ),
        ),
        hunt=TROUBLED,
    ),
    Mutant(
        "batches and lanes write at the same time",
        (
            Patch(
                BATCH,
                "            await self._turn.acquire()\n            self._has_turn = True\n",
                "            pass\n",
            ),
        ),
        hunt=TROUBLED,
    ),
    Mutant("batches keep the states that a lane has changed", (Patch(MEMORY_FILE, _FORGET, ""),), hunt=TROUBLED),
)
