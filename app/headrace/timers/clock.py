"""When the next timer of a partition is due, as its owner knows it."""

from __future__ import annotations

import math
import time

LOOK_SECONDS = 60.0
"""While a timer waits, the owner asks Postgres at least this often how long still."""


class TimerClock:
    """The monotonic time at which Postgres should be asked for due timers; never if there is none."""

    def __init__(self) -> None:
        self._asks_at = math.inf

    @property
    def has_timers(self) -> bool:
        """True if a timer is known to wait."""
        return self._asks_at < math.inf

    @property
    def seconds(self) -> float:
        """Seconds until Postgres should be asked: 0 if it is time, infinity if there is no timer."""
        return max(0.0, self._asks_at - time.monotonic())

    def learn(self, seconds: float | None) -> None:
        """The next timer is due in so many seconds, says Postgres; None: there is none."""
        self._asks_at = math.inf
        self.follow(seconds)

    def follow(self, seconds: float | None) -> None:
        """A timer was set that is due in so many seconds; None: none was."""
        if seconds is not None:
            self._asks_at = min(self._asks_at, time.monotonic() + min(max(0.0, seconds), LOOK_SECONDS))
