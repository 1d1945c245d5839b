"""Keeps log entries that may come by the thousand to one a minute each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

PERIOD_SECONDS = 60.0
MAX_KEYS = 1_000
"""Beyond this every key begins again: a key may hold a class that a team's code makes as it runs."""


class OncePerMinute:
    """Says which entries are written: the first of each key, and then one a minute. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._written: dict[Hashable, tuple[float, int]] = {}
        """When an entry of the key was last written, and how many were held back since."""

    def held_back(self, key: Hashable) -> int | None:
        """Return how many entries of the key were held back since the last one; None if this one is held back, too."""
        now = self._clock()
        with self._lock:
            if len(self._written) > MAX_KEYS:
                self._written.clear()
            at, count = self._written.get(key, (now - PERIOD_SECONDS, 0))
            if now - at < PERIOD_SECONDS:
                self._written[key] = (at, count + 1)
                return None
            self._written[key] = (now, 0)
            return count
