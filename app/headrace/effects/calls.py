"""The calls to the outside of one partition, as its owner knows them: one row of `headrace.effect` each."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from headrace.handlers.subscription import Effect
from headrace.item import Item, Outcome
from headrace.log.ports import alone

Place: TypeAlias = tuple[int, bytes]
"""(number, identity)."""


@dataclass(eq=False, slots=True)
class Call:
    """One call that is to be made, is under way, or is to be made again."""

    item: Item
    effect: Effect
    number: int
    attempts: int = 0
    """Runs that have failed."""
    due: float = 0.0
    """When it may run again, in Unix seconds; infinity: when an operator says so."""
    answers: dict[str, str] = field(default_factory=dict)
    """What its steps have been answered, as JSON, by name."""
    may_have_answers: bool = False
    """True if an earlier run of the event may have left answers in Postgres."""

    @property
    def key(self) -> str:
        """The key that order is kept by."""
        return self.item.key or ""

    @property
    def place(self) -> Place:
        """Where it is among the calls of its partition."""
        return self.number, self.item.identity


def _ignore() -> None: ...


class Calls:
    """All calls of a partition, in order per key; those at the front of their key are the runner's.

    What is behind a held call is in Postgres only. It is read when the held one has ended.
    """

    def __init__(self) -> None:
        self.by_key: dict[str, deque[Call]] = {}
        self.fronts: list[Call] = []
        """Calls that have come to the front of their key, for the runner to take."""
        self.total = 0
        """How many there are in memory."""
        self.beyond: dict[str, Place] = {}
        """Keys whose calls behind this place are in Postgres only."""
        self.wanted: dict[str, None] = {}
        """Those of them that have no call in memory any more: their next ones are to be read."""
        self.on_push: Callable[[], None] = _ignore
        self._next_number = 1

    def of(self, items: Sequence[Item], effects: Mapping[str, Effect]) -> list[Call]:
        """Return the calls of applied events; `push` must follow when they are committed."""
        calls: list[Call] = []
        for item in items:
            if item.outcome is Outcome.APPLIED and item.event_type is not None:
                effect = effects.get(item.event_type.type)
                if effect is not None:
                    number = self._next_number + len(calls)
                    calls.append(Call(item, effect, number, may_have_answers=item.number > 0))
        return calls

    def push(self, calls: Iterable[Call]) -> None:
        """Take calls in, behind those of their keys."""
        for call in calls:
            call.item.handler = call.effect.handler
            call.item.record = alone(call.item.record)  # it may wait for days
            self.number_from(call.number + 1)
            if call.key in self.beyond:
                continue
            self.total += 1
            waiting = self.by_key.setdefault(call.key, deque())
            waiting.append(call)
            if len(waiting) == 1:
                self.fronts.append(call)
            if call.due == math.inf:
                self.beyond[call.key] = call.place
        self.on_push()

    def number_from(self, number: int) -> None:
        """Give the next calls this number, or a higher one."""
        self._next_number = max(self._next_number, number)

    def hold(self, call: Call) -> None:
        """Leave what is behind a front call that is held to Postgres."""
        waiting = self.by_key[call.key]
        kept = deque(each for each in waiting if each.place <= call.place)
        self.total -= len(waiting) - len(kept)
        self.by_key[call.key], self.beyond[call.key] = kept, call.place

    def resume(self, key: str) -> None:
        """The next calls of a wanted key have been read: `push` follows for each, then `resumed`."""
        del self.beyond[key], self.wanted[key]

    def resumed(self, key: str, through: Place | None) -> None:
        """All calls that were read are pushed; `through` is where they end, if there may be more."""
        if through is not None:
            self.beyond.setdefault(key, through)
        if self.by_key[key]:
            return
        if key in self.beyond:
            self.wanted[key] = None
        else:
            del self.by_key[key]

    def put_back(self, call: Call) -> None:
        """Take a call in again that had ended: at the front of its key, or behind the one that has begun since."""
        self.total += 1
        waiting = self.by_key.setdefault(call.key, deque())
        waiting.insert(1, call)
        if len(waiting) == 1:
            self.fronts.append(call)

    def end(self, call: Call) -> None:
        """Forget the front call of a key, which is done or given up on."""
        waiting = self.by_key[call.key]
        waiting.popleft()
        self.total -= 1
        if waiting:
            self.fronts.append(waiting[0])
        elif call.key in self.beyond:
            self.wanted[call.key] = None
        else:
            del self.by_key[call.key]
