"""Events that are numbered in sequence, of which some come late: those behind them are held until then."""

from __future__ import annotations

import random

KEYS, EACH = 3, 20
"""Keys that are open at a time, and events of each."""
LATE, MOST_LATE = 0.1, 5
"""The share of events that come late, and how many there are at a time before one of them comes."""
Step = tuple[str, int]
"""Key and number."""


class Steps:
    """Draws them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._open = [(key, 0) for key in range(KEYS)]
        self._keys = KEYS
        self._late: list[Step] = []

    def next(self) -> list[Step]:
        """Return what comes next: the next event of a key, or one that is late, or nothing."""
        place = self._chance.randrange(KEYS)
        key, number = self._open[place]
        step = (f"s{key}", number)
        if number + 1 < EACH:
            self._open[place] = (key, number + 1)
        else:
            self._open[place] = (self._keys, 0)
            self._keys += 1
        if self._chance.random() >= LATE:
            return [step]
        self._late.append(step)
        return [self._late.pop(0)] if len(self._late) > MOST_LATE else []

    def rest(self) -> list[Step]:
        """Return all that is late, in an order of chance."""
        late, self._late = self._late, []
        self._chance.shuffle(late)
        return late
