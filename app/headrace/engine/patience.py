"""How long a run waits for one call of a handler, so that a key whose events take long delays that key only.

While few calls take long, a run waits for `seconds` and then leaves the event to its key's lane, which runs it with its
whole time limit, beside all else. A handler that always takes so long is waited for: a run that gave up on each of its
events would do nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

CALLS_FOR_EACH = 100
"""One call in so many may be given up on before its limit."""
MOST = 10.0
"""As many in a row may be, also of the first calls."""


class Wait(NamedTuple):
    """How long a call is waited for."""

    seconds: float
    is_cut: bool
    """True if the call's own time limit is longer."""


class Patience:
    """What is known of one partition's calls. No clock, no I/O."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._left = MOST

    def wait(self, limit_seconds: float) -> Wait:
        """Return how long a call is waited for whose time limit is `limit_seconds`."""
        is_cut = self._left >= 1.0 and self.seconds < limit_seconds
        return Wait(self.seconds if is_cut else limit_seconds, is_cut)

    def given_up(self) -> None:
        """A call was given up on before its limit."""
        self._left -= 1.0

    def called(self, calls: int) -> None:
        """So many calls have returned."""
        self._left = min(MOST, self._left + calls / CALLS_FOR_EACH)
