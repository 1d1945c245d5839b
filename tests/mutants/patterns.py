"""Mistakes about effects, windows, batch handlers and states that expire."""

from __future__ import annotations

from tests.mutants.hunts import QUIET, dead_at
from tests.mutants.mutant import Hunt, Mutant, Patch

BATCH = "app/headrace/engine/batch.py"
LISTS = "app/headrace/engine/lists.py"
CALLING = "app/headrace/engine/calling.py"
STEPS = "app/headrace/effects/steps.py"
CACHE = "app/headrace/state/cache.py"
COURSE = "app/headrace/windows/course.py"

_STARTED = "self.memory.calls.of(self.memory.calling(effects.items), self.subscription.effects)\n"

PATTERNS = (
    Mutant(
        "effects are called before the commit",
        (Patch(BATCH, _STARTED, f"{_STARTED}            self.memory.calls.push(effects.started)\n"),),
        hunt=dead_at("effects are written", tells=0.1),
    ),
    Mutant(
        "the answer of a step is asked for again",
        (Patch(STEPS, "        known = self._answers.get(name)\n", "        known = None\n"),),
        hunt=Hunt(events=1_200, workers=1, partitions=1, shares={"tells": 0.1}),
    ),
    Mutant(
        "later calls of a key do not wait for the one before",
        (
            Patch(
                CALLING,
                "        self._failed.add(call)\n        if seconds == math.inf:\n",
                "        self._failed.add(call)\n"
                "        waiting = self._calls.by_key[call.key]\n"
                "        if waiting[0] is call and len(waiting) > 1:\n"
                "            waiting.rotate(-1)\n"
                "            self._calls.fronts.append(waiting[0])\n"
                "        if seconds == math.inf:\n",
            ),
        ),
        hunt=Hunt(events=1_200, workers=1, partitions=1, shares={"tells": 0.2}),
    ),
    Mutant(
        "a window that has closed opens again",
        (Patch(COURSE, "            if over is not None and end <= over:\n", "            if False:\n"),),
        hunt=Hunt(events=6_000, workers=1, partitions=1, shares={"echoes": 1.0}),
    ),
    Mutant(
        "a window of a silent key stays open",
        (Patch(COURSE, "            if window.events == 0:\n", "            if False:\n"),),
        hunt=QUIET,
    ),
    Mutant(
        "what a list that raised has emitted is kept",
        (Patch(LISTS, "        run.emitter.undo_list(self._emitted)\n", ""),),
        hunt=Hunt(events=1_200, workers=1, partitions=1, shares={"echoes": 0.5}),
    ),
    Mutant(
        "an owner goes on with a state that has expired",
        (
            Patch(
                CACHE,
                "            self.forget([key for key in keys if self._ends_at.get(key, now) < now])\n",
                "            self.forget([])\n",
            ),
        ),
        hunt=Hunt(("slow Postgres",), faults=3, shares={"reminds": 0.3}),
    ),
)
