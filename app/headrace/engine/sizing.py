"""How many records the next transaction takes: few at first, more while they are quick, fewer when they are not."""

from __future__ import annotations

FIRST_RECORDS = 1_000


class BatchSize:
    """The limit of one partition, between 1 and `most` records. No clock, no I/O."""

    def __init__(self, most: int, target_seconds: float) -> None:
        self._most = most
        self._target_seconds = target_seconds
        self.records = min(FIRST_RECORDS, most)

    def took(self, records: int, seconds: float) -> None:
        """Adapt to a batch of `records` that took `seconds`: double the limit, or take what fits into the target."""
        if seconds > self._target_seconds:
            self.records = max(1, int(records * self._target_seconds / seconds))
        else:
            self.records = min(self.records * 2, self._most)

    def shrink(self, records: int) -> int:
        """Halve a batch of `records` that could not be applied whole; return the new limit."""
        self.records = max(1, records // 2)
        return self.records
