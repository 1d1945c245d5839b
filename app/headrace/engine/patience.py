"""How long a run waits for one call of a handler, so that a key whose events take long delays that key only.

While few calls take long, a run waits for `seconds` and then leaves the event to its key's lane, which runs it with its
whole time limit, beside all else. A handler that always takes so long is waited for: a run that gave up on each of its
events would do nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

from headrace.errors import HandlerError
from headrace.item import Item
from headrace.telemetry.failures import text_of

CALLS_FOR_EACH = 100
"""One call in so many may be given up on before its limit."""
MOST = 10.0
"""As many in a row may be, also of the first calls."""


class OverdueError(Exception):
    """A call was given up on: undo the run, which goes on without the event."""

    def __init__(self, item: Item, seconds: float, *, is_cut: bool) -> None:
        super().__init__(f"the handler did not return for {seconds:.3g} seconds.")
        self.item = item
        self.seconds = seconds
        self.is_cut = is_cut
        """True if its own time limit is longer: then it has not failed."""

    def failure(self) -> HandlerError:
        """Return why the event waits. An async handler has raised something when it was cancelled at its limit."""
        cause, handler = self.__cause__, self.item.handler
        if self.is_cut or cause is None or handler is None:
            return HandlerError(str(self), "")
        failure = HandlerError(f"{handler.name} raised {type(cause).__name__}: {text_of(cause)}", handler.name)
        failure.__cause__ = cause
        return failure


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
