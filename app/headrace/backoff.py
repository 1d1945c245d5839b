"""How long to wait before the next attempt: the wait doubles with each failure, up to a longest one."""

from __future__ import annotations

import random
from collections.abc import Callable

MAX_DOUBLINGS = 64
"""A float overflows at 1,024 doublings, and no longest wait is as long as 2**64 times the first."""


class Backoff:
    """The waits between the attempts of one piece of work.

    ```python
    backoff = Backoff(0.1, 10.0)
    while not await attempt():
        await asyncio.sleep(backoff.next_seconds())
    ```
    `jitter` is the largest part of a wait that chance takes off, from 0 (none) to 1: with 0.5 a wait of 8 s becomes one
    between 4 and 8 s, so that many who failed at the same moment do not come back at the same moment.
    """

    def __init__(
        self,
        first_seconds: float,
        longest_seconds: float,
        jitter: float = 0.0,
        *,
        chance: Callable[[], float] = lambda: random.random(),  # noqa: PLW0108, S311 - a simulation replaces it
    ) -> None:
        """`chance` returns a number from 0 up to 1; a test gives its own."""
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._jitter = jitter
        self._chance = chance
        self.failures = 0
        """The failures in a row that `next_seconds` has counted."""

    def next_seconds(self) -> float:
        """Count one more failure and return the seconds to wait."""
        self.failures += 1
        return self.seconds_after(self.failures)

    def reset(self) -> None:
        """Note a success: the next wait is the first one again."""
        self.failures = 0

    def seconds_after(self, failures: int) -> float:
        """Return the seconds to wait after that many failures in a row (at least 1); counts nothing."""
        doublings = min(failures - 1, MAX_DOUBLINGS)
        seconds = min(self._longest_seconds, self._first_seconds * 2.0**doublings)
        return seconds * (1.0 - self._jitter * self._chance())
