"""What a handler may raise, or return, to say what becomes of its event: `Retry`, `DeadLetter`, `Skip`.

Whichever it is, what the handler changed and emitted for the event is undone, as with any other exception.
"""

from __future__ import annotations

from datetime import timedelta

from headrace.durations import LONGEST_SECONDS


class HandlerVerdict(Exception):  # noqa: N818 - it is no error, but an answer
    """The base of the three."""


class Retry(HandlerVerdict):
    """Run the event again, `after` so many seconds (or a timedelta); without it, after the policy's own wait.

    The attempt counts: an event that has used up its attempts comes to the end that its policy names.
    """

    after_seconds: float | None = None

    def __init__(self, after: float | timedelta | None = None, reason: str = "") -> None:
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        if seconds is not None and not 0 <= seconds <= LONGEST_SECONDS:
            raise ValueError(
                f"Retry({after!r}): after is a timedelta, or a number of seconds, from 0 to a hundred years."
            )
        super().__init__(reason or "it asked for a retry")
        self.after_seconds = None if seconds is None else float(seconds)  # it may be a Decimal


class DeadLetter(HandlerVerdict):
    """Give the event up at once: it becomes a dead letter with this reason, and its key goes on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Skip(HandlerVerdict):
    """The event needs no effect: it is counted as skipped, and its key goes on."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
