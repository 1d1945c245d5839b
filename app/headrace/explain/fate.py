"""What became of an event in one subscription, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

Outcome = Literal["applied", "stale", "parked", "dead_letter", "pending", "unknown"]


class Emitted(NamedTuple):
    """An event that the event's handler emitted."""

    type: str
    topic: str
    id: str
    published: bool
    """True if the claim says that the log has it."""


Stage = Literal["started", "waits", "held", "ended", "failed"]
"""`started`: under way, or begins when its limits let it; `failed`: given up on, a dead letter tells why."""


class EffectFate(NamedTuple):
    """Where the call of the subscription's effect stands for the event."""

    name: str
    stage: Stage
    detail: str
    attempts: int = 0
    """Runs that have failed."""
    steps: Sequence[str] = ()
    """Its steps that are answered, as long as it has not ended."""


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
    effect: EffectFate | None = None
    """None if the subscription has no effect for the event, or has not started it."""


def shown(event_id: str, fates: Sequence[Fate]) -> dict[str, Any]:
    """Return what the API and the command show."""
    return {
        "id": event_id,
        "fates": [_shown(fate) for fate in fates],
    }


def _shown(fate: Fate) -> dict[str, Any]:
    effect = fate.effect._asdict() if fate.effect is not None else None
    return {**fate._asdict(), "emitted": [each._asdict() for each in fate.emitted], "effect": effect}
