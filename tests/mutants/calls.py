"""Mistakes about calls to the outside: their ends, their answers, their keys, their order and their attempts."""

from __future__ import annotations

from tests.mutants.hunts import dead_at
from tests.mutants.mutant import Hunt, Mutant, Patch

CLAIM = "app/headrace/engine/claim.py"
CALLING = "app/headrace/engine/calling.py"
CALLS_FILE = "app/headrace/effects/calls.py"
OUTSIDE = "app/headrace/engine/outside.py"
ROWS = "app/headrace/effects/rows.py"
STEPS = "app/headrace/effects/steps.py"

_COUNT_DEATH = "                await connection.execute(sql.effect.COUNT_DEATH, group, partition.partition, owner)\n"
_MANY = {"tells": 0.3}
_LEFT = Hunt(("leave",), faults=3, shares=_MANY)
_DEAD = Hunt(("kill", "die at a point"), ("an answer is kept", "ended effects are removed"), faults=4, shares=_MANY)

CALLS = (
    Mutant(
        "the end of a call is not written",
        (
            Patch(
                OUTSIDE,
                "            if ended:\n                done",
                "            if not ended:\n                done",
            ),
        ),
        hunt=_LEFT,
    ),
    Mutant(
        "what a call emits is not written with its end",
        (
            Patch(
                OUTSIDE,
                "        if each.emitter is not None:\n            effects.emits",
                "        if each.attempts:\n            effects.emits",
            ),
        ),
        hunt=Hunt(events=1_200, workers=1, partitions=1, shares=_MANY),
    ),
    Mutant(
        "the idempotency key is another one at each attempt",
        (
            Patch(
                CALLING,
                "Steps(self._subscription.group, item.identity,",
                'Steps(f"{self._subscription.group}/{item.attempt}", item.identity,',
            ),
        ),
        hunt=Hunt(events=1_200, workers=1, partitions=1, shares=_MANY),
    ),
    Mutant(
        "a step goes on before its answer is kept",
        (
            Patch(
                STEPS,
                "        await self._memory.keep(self._identity, name, answer)\n",
                "        asyncio.ensure_future(self._memory.keep(self._identity, name, answer))\n",
            ),
        ),
        hunt=dead_at("an answer is to be kept", **_MANY),
    ),
    Mutant(
        "answers are not loaded at the claim",
        (Patch(ROWS, '            answers.get(row["identity"], {}),\n', "            {},\n"),),
        hunt=_DEAD,
    ),
    Mutant(
        "the calls of a partition have one number",
        (Patch(CALLS_FILE, "            self.number_from(call.number + 1)\n", ""),),
        hunt=dead_at("ended effects are removed", tells=1.0),
    ),
    Mutant(
        "a call begins though one of its key is under way",
        (
            Patch(
                CALLS_FILE,
                "            if len(waiting) == 1:\n                self.fronts.append(call)\n            if call.due",
                "            if waiting:\n                self.fronts.append(call)\n            if call.due",
            ),
        ),
        hunt=Hunt(events=1_200, workers=1, partitions=1, shares=_MANY),
    ),
    Mutant(
        "a death is counted at every claim",
        (Patch(CLAIM, _COUNT_DEATH, _COUNT_DEATH.replace("                await", "            await")),),
        hunt=_LEFT,
    ),
)
