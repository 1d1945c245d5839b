"""Unix time that nobody turns: as it was when a partition was claimed, and as it has gone on since.

Retries wait by it. If the machine's clock is turned back by hours, a lane must not wait for hours; if it is turned
forward, none is tried before its time. What other processes read of it, a lane's `due_at`, is as right as the
machine's clock was at the claim: a next owner with another clock may retry that much later, never twice.
"""

from __future__ import annotations

import time


class SteadyClock:
    """Shows Unix seconds."""

    def __init__(self) -> None:
        self._ahead_seconds = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the Unix seconds of now."""
        return self._ahead_seconds + time.monotonic()
