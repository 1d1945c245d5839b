"""The dedupe window: the event ids that a partition has seen, newest last."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

IDENTITY_BYTES = 16


class DedupeWindow:
    """The identities of the last `limit` events or a little more: whole batches enter and leave.

    Memory: about 130 bytes an identity. The ids come from the ledger at the claim, so a new owner knows what the old
    one knew.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._batches: deque[tuple[float, Sequence[bytes]]] = deque()
        self.ids: set[bytes] = set()
        """For membership tests on the hot path; changed by `add` only."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def since(self) -> float | None:
        """When the oldest batch in the window was committed, in Unix seconds; None for an empty window."""
        return self._batches[0][0] if self._batches else None

    def add(self, identities: Sequence[bytes], at: float) -> None:
        """Take in the ids of a batch committed `at` (Unix seconds), and drop the oldest batches beyond the limit."""
        if not identities:
            return
        self._batches.append((at, identities))
        self.ids.update(identities)
        while len(self.ids) - len(self._batches[0][1]) >= self._limit and len(self._batches) > 1:
            self.ids.difference_update(self._batches.popleft()[1])

    def add_packed(self, packed: bytes, at: float) -> None:
        """Take in the ids of one ledger row."""
        self.add([packed[i : i + IDENTITY_BYTES] for i in range(0, len(packed), IDENTITY_BYTES)], at)
