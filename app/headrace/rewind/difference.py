"""What today's handlers make of yesterday's events, beside what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from headrace.sagas.kept import SAGA_STATE
from headrace.state.codec import StateType

EXAMPLES = 10
"""Of each kind of difference so many are kept to be shown."""


class Changed(NamedTuple):
    """A state that would be another one; None stands for a key that has none."""

    state: str
    key: str
    before: Any
    after: Any


class Raised(NamedTuple):
    """An event whose handler raises now, and did not."""

    topic: str
    partition: int
    offset: int
    key: str | None
    error: str


class Emits(NamedTuple):
    """Emitted events: those that can be compared, since the ledger still has them, and how they would differ."""

    compared: int = 0
    changed: int = 0
    added: int = 0
    missing: int = 0


@dataclass
class Difference:
    """All of it. The lists hold the first examples."""

    subscription: str
    offsets: int = 0
    """Offsets since the place that was asked for."""
    events: int = 0
    """Events whose handler ran; those before the place, for the states, are among them."""
    keys: int = 0
    """Keys that have events since the place, and could be compared."""
    topics: int = 1
    """Topics whose events ran in the order of the times that the log has for them."""
    left_out: int = 0
    """Keys that cannot be compared, since one of their events came before its turn; then no emitted event is."""
    changed: int = 0
    changes: list[Changed] = field(default_factory=list)
    raised: int = 0
    raises: list[Raised] = field(default_factory=list)
    mended: int = 0
    """Events that failed then, and would be applied."""
    emits: Emits = field(default_factory=Emits)

    @property
    def is_empty(self) -> bool:
        """True if nothing would be different."""
        return not (self.changed or self.raised or self.mended or any(self.emits[1:]))

    def add_changed(self, changed: Changed) -> None:
        """Count a state, and keep it if it is among the first."""
        self.changed += 1
        if len(self.changes) < EXAMPLES:
            self.changes.append(changed)

    def add_raised(self, raised: Raised) -> None:
        """Count an event, and keep it if it is among the first."""
        self.raised += 1
        if len(self.raises) < EXAMPLES:
            self.raises.append(raised)

    def shown(self) -> dict[str, Any]:
        """Return all of it, JSON-ready."""
        return {
            "subscription": self.subscription,
            "offsets": self.offsets,
            "events": self.events,
            "keys": self.keys,
            "topics": self.topics,
            "left_out": self.left_out,
            "changed": {"count": self.changed, "first": [each._asdict() for each in self.changes]},
            "raises": {"count": self.raised, "first": [each._asdict() for each in self.raises]},
            "mended": self.mended,
            "emits": self.emits._asdict(),
        }


def compare(
    difference: Difference,
    state: StateType,
    before: Mapping[str, tuple[bytes, int]],
    after: Mapping[str, bytes],
) -> None:
    """Add the keys whose state differs: JSON as Postgres has it, with its class's version, and as `state` writes it."""
    for key in sorted(before.keys() | after.keys()):
        kept, made = before.get(key), after.get(key)
        if kept is None or made is None or not _are_equal(state, kept, (made, state.keeping.version)):
            shown = (msgspec.json.decode(each) if each is not None else None for each in (kept and kept[0], made))
            difference.add_changed(Changed(state.name, key, *shown))


def _are_equal(state: StateType, kept: tuple[bytes, int], made: tuple[bytes, int]) -> bool:
    return _comparable(state, *kept) == _comparable(state, *made)


def _comparable(state: StateType, raw: bytes, version: int) -> object:
    """Return the state as its class has it today: a new field with a default makes no difference."""
    try:
        written = state.write(state.load(raw, version)[0])
    except ValueError:
        written = raw  # its class does not fit any more, which is a difference
    read = msgspec.json.decode(written)
    if state.name == SAGA_STATE:
        del read["history"]  # when it ran
    return read
