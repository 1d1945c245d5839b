"""The calls to the outside of one partition, as its owner knows them: one row of `headrace.effect` each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.handlers.subscription import Effect
from headrace.item import Item, Outcome


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


def _ignore() -> None: ...


class Calls:
    """All calls of a partition, in order per key; those at the front of their key are the runner's."""

    def __init__(self) -> None:
        self.by_key: dict[str, deque[Call]] = {}
        self.fronts: list[Call] = []
        """Calls that have come to the front of their key, for the runner to take."""
        self.total = 0
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
            self._next_number = max(self._next_number, call.number + 1)
            self.total += 1
            waiting = self.by_key.get(call.key)
            if waiting is None:
                self.by_key[call.key] = deque([call])
                self.fronts.append(call)
            else:
                waiting.append(call)
        self.on_push()

    def put_back(self, call: Call) -> None:
        """Take a call in again that had ended: at the front of its key, or behind the one that has begun since."""
        self.total += 1
        waiting = self.by_key.get(call.key)
        if waiting is None:
            self.by_key[call.key] = deque([call])
            self.fronts.append(call)
        else:
            waiting.insert(1, call)

    def end(self, call: Call) -> None:
        """Forget the front call of a key, which is done or given up on."""
        waiting = self.by_key[call.key]
        waiting.popleft()
        self.total -= 1
        if waiting:
            self.fronts.append(waiting[0])
        else:
            del self.by_key[call.key]
