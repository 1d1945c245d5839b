"""What an event does to the windows of its key: pure functions of what is kept and the event, which emit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.emits.emitter import Emitter
from headrace.windows.kept import KeptWindows, OpenWindow, Window

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Course:
    """The windows of one declaration. `opened` makes one, with the first value of its class."""

    def __init__(self, size: timedelta, every: timedelta, lateness: timedelta) -> None:
        self.size, self.every, self.lateness = size, every, lateness
        self.opened: Callable[..., OpenWindow] = OpenWindow
        self.value: Callable[[], Any] = dict
        self.closed: Callable[[Any, Window], Any] | None = None
        self.late: Callable[[Any, Window], Any] | None = None
        self.due_model: type[Any] = dict
        self.forgets = False
        """True if what is kept of a key expires."""

    def starts(self, at: datetime) -> Iterator[datetime]:
        """Yield the starts of the windows that hold a time, the earliest first."""
        last = (at - EPOCH) // self.every
        first = (at - self.size - EPOCH) // self.every + 1
        for number in range(first, last + 1):
            yield EPOCH + self.every * number

    def take(
        self, add: Callable[[Any, Any], Any], kept: KeptWindows, key: str, event: Any, at: datetime, emit: Emitter
    ) -> None:
        """Add an event to its windows, and close those that it is the end of."""
        missed: Window | None = None
        over = self._over(kept)
        for start in self.starts(at):
            end = start + self.size
            if over is not None and end <= over:
                missed = Window(key, start, end, 0)
                continue
            window = self._window(kept, start, end)
            if window.events == 0:
                emit(self.due_model(key=key, end=end), after=end - at + self.lateness, name=_name(end))
            add(window.value, event)
            window.events += 1
        if missed is not None:
            kept.late += 1
            emit.count("late")
            _emit_all(emit, self.late(event, missed) if self.late is not None else None)
        kept.newest = at if kept.newest is None else max(at, kept.newest)
        self._close(kept, key, kept.newest - self.lateness, emit)

    def due(self, kept: KeptWindows, key: str, end: datetime, emit: Emitter) -> None:
        """The time of a window is over, and no event has said so.

        Raises: ValueError (the window is not known, since the state has expired).
        """
        is_closed = kept.closed_until is not None and kept.closed_until >= end
        if self.forgets and not is_closed and all(window.end != end for window in kept.open):
            raise ValueError(
                f"the window of {key!r} that ends at {end} was forgotten before it was closed, and what was in it is "
                "lost: the ttl of these windows was over while their events waited; make it longer than workers may "
                "stand still."
            )
        self._close(kept, key, end, emit, fired=end)

    def _over(self, kept: KeptWindows) -> datetime | None:
        """Return up to which end windows take no event any more."""
        if kept.newest is None:
            return kept.closed_until
        waited = kept.newest - self.lateness
        return waited if kept.closed_until is None else max(waited, kept.closed_until)

    def _window(self, kept: KeptWindows, start: datetime, end: datetime) -> OpenWindow:
        for window in kept.open:
            if window.end == end:
                return window
        window = self.opened(start=start, end=end, value=self.value())
        kept.open.append(window)
        kept.open.sort(key=lambda each: each.end)
        return window

    def _close(
        self, kept: KeptWindows, key: str, until: datetime, emit: Emitter, fired: datetime | None = None
    ) -> None:
        """Close the windows that end at a time or before; the timer of the one that `fired` is gone already."""
        while kept.open and kept.open[0].end <= until:
            window = kept.open.pop(0)
            kept.closed_until = window.end
            emit.count("closed")
            if window.end != fired:
                emit.cancel(self.due_model, key, _name(window.end))
            if self.closed is not None:
                _emit_all(emit, self.closed(window.value, Window(key, window.start, window.end, window.events)))


def _name(end: datetime) -> str:
    return end.isoformat()


def _emit_all(emit: Emitter, returned: Any) -> None:
    if returned is None:
        return
    for event in returned if isinstance(returned, (list, tuple)) else (returned,):
        emit(event)
