"""All that one batch changes, as a value: made by `settle.py`, written by `commit.py`, followed by `memory.py`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import TypeAlias

from headrace.effects.calls import Call
from headrace.emits.emitter import Counted
from headrace.engine.claim import Fingerprint
from headrace.engine.lanes import Lane
from headrace.event import EventType
from headrace.item import Item, Outcome
from headrace.keeping import Keeping
from headrace.ledger.rows import Kind
from headrace.log.ports import NewRecord
from headrace.sagas.kept import SAGA_STATE
from headrace.sagas.store import EndedSaga
from headrace.tables.writes import TableWriter
from headrace.timers.changes import Change

StateRow: TypeAlias = tuple[str, int, bytes]
"""(key, new version, JSON)."""

_outcome_and_type = attrgetter("outcome", "event_type")


@dataclass
class Effects:
    """What a batch does. `next_offset` and `last` are those of the claim afterwards."""

    kind: Kind
    items: Sequence[Item]
    next_offset: int
    last: Fingerprint | None
    seen: list[Item] = field(default_factory=list)
    """Items whose identity enters the dedupe window."""
    states: dict[str, list[StateRow]] = field(default_factory=dict)
    keeping: Mapping[str, Keeping] = field(default_factory=dict)
    """How each state is kept."""
    emits: list[tuple[Item, NewRecord]] = field(default_factory=list)
    timers: list[tuple[Item, Change]] = field(default_factory=list)
    counted: Sequence[tuple[Item, Counted]] = ()
    """What its events did to windows."""
    made_at: float = field(default_factory=lambda: time.monotonic())  # noqa: PLW0108 - the clock of now, not of the import
    """Before anything of it was written, as `time.monotonic()` tells."""
    rows: TableWriter | None = None
    """What the handlers of a projection did."""
    next_timer_seconds: float | None = None
    """When the first of the timers that it set is due, counted from when they were written."""
    sagas_ended: list[EndedSaga] = field(default_factory=list)
    started: list[Call] = field(default_factory=list)
    """Calls to the outside that begin behind the commit."""
    parked: list[Item] = field(default_factory=list)
    """Items that enter a lane, numbered."""
    dead: list[tuple[Item, int]] = field(default_factory=list)
    """(item, attempts) that become dead letters."""
    lanes: dict[str, Lane] = field(default_factory=dict)
    """Lanes as they are from now on."""
    released: list[Item] = field(default_factory=list)
    """Items that leave their lane."""
    closed: list[str] = field(default_factory=list)
    """Keys whose lane is empty from now on."""
    strays: set[str] = field(default_factory=set)
    """Keys that the default partitioner would have put on another partition: another owner may hold them as well."""
    emitted_through: int = 0
    """What was written into the claim: the relay may have come further since, and the claim must know that it lags."""
    tally: Counter[tuple[Outcome, EventType | None]] = field(default_factory=Counter)
    """Items by (outcome, declared type)."""

    @cached_property
    def identities(self) -> list[bytes]:
        """Those that enter the dedupe window, once every outcome is known."""
        return [item.identity for item in self.seen]

    @cached_property
    def marks(self) -> list[int]:
        """The marks of the `identities`."""
        return [item.mark for item in self.seen]

    @property
    def is_plain(self) -> bool:
        """True if it changes nothing but states, the ledger and its claim."""
        return self.rows is None and not (
            self.parked
            or self.released
            or self.lanes
            or self.closed
            or self.dead
            or self.timers
            or self.started
            or self.states.get(SAGA_STATE)
        )

    def count(self) -> None:
        """Fill `tally`, once every outcome is known."""
        self.tally = Counter(map(_outcome_and_type, self.items))

    def total(self, outcomes: Container[Outcome]) -> int:
        """Return how many items ended in one of the outcomes."""
        return sum(count for (outcome, _), count in self.tally.items() if outcome in outcomes)
