"""What became of an event in one subscription, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

Outcome = Literal["applied", "parked", "dead_letter", "pending", "unknown"]


class Emitted(NamedTuple):
    """An event that the event's handler emitted."""

    type: str
    topic: str
    id: str
    published: bool
    """True if the claim says that the log has it."""


class Fate(NamedTuple):
    """What one subscription did with one event. `offset` is that of the first copy of it."""

    subscription: str
    outcome: Outcome
    detail: str
    source: str | None = None
    type: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    at: datetime | None = None
    """When it came to this outcome."""
    accepted_at: datetime | None = None
    """When the log took it in; None if the log no longer has it, or was not asked."""
    emitted: Sequence[Emitted] = ()


def shown(event_id: str, fates: Sequence[Fate]) -> dict[str, Any]:
    """Return what the API and the command show."""
    return {
        "id": event_id,
        "fates": [{**fate._asdict(), "emitted": [each._asdict() for each in fate.emitted]} for fate in fates],
    }
