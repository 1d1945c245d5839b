"""How many records the next transaction takes: few at first, more while they are quick, fewer when they are not."""

from __future__ import annotations

import math

FIRST_RECORDS = 1_000
LEAST_RECORDS = 250
"""A batch takes so many whatever waits behind it, since its commit costs the same for one; slow handlers end it."""


class BatchSize:
    """The limit of one partition, between 1 and `most` records. No clock, no I/O."""

    def __init__(self, most: int, target_seconds: float) -> None:
        self._most = most
        self._target_seconds = target_seconds
        self.records = min(FIRST_RECORDS, most)
        self._seconds_each = 0.0
        """What a record of the latest batch took."""

    def took(self, records: int, seconds: float) -> None:
        """Adapt to a batch of `records` that took `seconds`: double the limit, or take what fits into the target."""
        self._seconds_each = seconds / max(1, records)
        if seconds > self._target_seconds:
            self.records = max(1, int(records * self._target_seconds / seconds))
        else:
            self.records = min(self.records * 2, self._most)

    def within(self, seconds: float) -> int:
        """Return how many records are taken if something else is to be done after so many seconds."""
        if seconds == math.inf or not self._seconds_each:
            return self.records
        return min(self.records, max(LEAST_RECORDS, int(seconds / self._seconds_each)))

    def shrink(self, records: int) -> int:
        """Halve a batch of `records` that could not be applied whole; return the new limit."""
        self.records = max(1, records // 2)
        return self.records
