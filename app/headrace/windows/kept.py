"""What is remembered of the windows of one key."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pydantic import BaseModel, create_model

from headrace.keeping import keep


class Window(NamedTuple):
    """One window of one key, as it is when it closes."""

    key: str
    start: datetime
    end: datetime
    """Exclusive: an event of this very time is in the next one."""
    events: int


class OpenWindow(BaseModel):
    """A window that takes events."""

    start: datetime
    end: datetime
    events: int = 0
    value: Any = None


class KeptWindows(BaseModel):
    """The state of one key."""

    newest: datetime | None = None
    """The latest time of an event."""
    closed_until: datetime | None = None
    """The end of the last window that has closed: none that ends then, or before, opens again."""
    late: int = 0
    """Events that came too late for a window."""
    open: list[OpenWindow] = []
    """By their ends."""


def kept_class(model: type[BaseModel], ttl: timedelta | None) -> type[KeptWindows]:
    """Return the class of the states of windows with values of this class; it has that one's name."""
    opened = create_model(f"Open{model.__name__}", __base__=OpenWindow, value=(model, ...))
    kept: type[KeptWindows] = create_model(model.__name__, __base__=KeptWindows, open=(list[opened], []))
    return keep(ttl=ttl)(kept)
