"""What is remembered of one saga: its status, its receipts, its history, and the team's own data."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, create_model

Status = Literal["new", "running", "compensating", "completed", "compensated", "timed_out"]
ENDS: tuple[Status, ...] = ("completed", "compensated", "timed_out")
"""Statuses in which nothing is awaited any more."""

SAGA_STATE = "headracesaga"
"""What the state of every saga is called."""

MOST_ENTRIES = 200
"""Of a history: more than any saga has, unless somebody keeps sending it events."""


class Receipt(BaseModel):
    """A reply that told a success: the step, and the reply's data as JSON."""

    step: str
    reply: str
    has_undo: bool = False
    """True if the step had an undo when the reply came."""


class Entry(BaseModel):
    """One line of a saga's history."""

    at: datetime
    what: str


class Kept(BaseModel):
    """The state of one saga."""

    status: Status = "new"
    step: str | None = None
    """The step that it waits for, or whose undo."""
    awaited: int = 0
    """Replies that are still to come."""
    reason: str | None = None
    has_timed_out: bool = False
    receipts: list[Receipt] = []
    history: list[Entry] = []
    data: Any = None

    @property
    def has_ended(self) -> bool:
        """True if nothing is awaited any more."""
        return self.status in ENDS

    def note(self, what: str) -> None:
        """Add a line to the history."""
        if len(self.history) < MOST_ENTRIES:
            self.history.append(Entry(at=datetime.now(UTC), what=what))


def kept_class(model: type[BaseModel]) -> type[Kept]:
    """Return the class of the states of a saga with this data."""
    data: Any = (model | None, None)
    return create_model("HeadraceSaga", __base__=Kept, data=data)
