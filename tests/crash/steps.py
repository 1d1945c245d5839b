"""Events that are numbered in sequence, of which some come late: those behind them are held until then."""

from __future__ import annotations

import random

KEYS = 3
LATE, MOST_LATE = 0.1, 5
"""The share of events that come late, and how many there are at a time before one of them comes."""
Step = tuple[str, int]
"""Key and number."""


class Steps:
    """Draws them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._numbers = [0] * KEYS
        self._late: list[Step] = []

    def next(self) -> list[Step]:
        """Return what comes next: the next event of a key, or one that is late, or nothing."""
        place = self._chance.randrange(KEYS)
        step = (f"s{place}", self._numbers[place])
        self._numbers[place] += 1
        if self._chance.random() >= LATE:
            return [step]
        self._late.append(step)
        return [self._late.pop(0)] if len(self._late) > MOST_LATE else []

    def rest(self) -> list[Step]:
        """Return all that is late, in an order of chance."""
        late, self._late = self._late, []
        self._chance.shuffle(late)
        return late
