"""How an event moves a saga on: pure functions of what is kept and the event, which emit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from headrace.cloudevents import event_key
from headrace.envelope import Envelope
from headrace.event import EventType, event_type_of
from headrace.handlers.inject import Emit
from headrace.sagas.kept import Kept, Receipt


class Step:
    """One step: its commands, the replies to them, and how a success is undone."""

    def __init__(self, name: str, commands: Callable[[Any], Any], seconds: float | None) -> None:
        self.name = name
        self.commands = commands
        self.seconds = seconds
        """The time that it has; None: any."""
        self.done: EventType | None = None
        self.failed: EventType | None = None
        self.learn: Callable[[Any, Any], None] | None = None
        self.undo: Callable[[Any, Any], Any] | None = None
        self.undone: EventType | None = None
        """The reply that an undo is waited for with; None: it is not waited for."""


class Course:
    """The steps of a saga in their order, and what each event does to one that is under way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started_by: EventType | None = None
        self.begin: Callable[[Any], Any] = lambda event: None
        self.steps: list[Step] = []
        self.completed: Callable[[Any], Any] | None = None
        self.compensated: Callable[[Any, str], Any] | None = None
        self.abandoned_by: list[EventType | None] = []
        self.timed_out_model: type[Any] = dict

    def step(self, name: str | None) -> Step | None:
        """Return the step of the name."""
        return next((step for step in self.steps if step.name == name), None)

    # What an event does

    def started(self, kept: Kept, event: Any, envelope: Envelope, emit: Emit) -> None:
        """Begin, unless a saga of this key has begun before."""
        if kept.status != "new":
            return
        kept.data, kept.status = self.begin(event), "running"
        kept.note(f"started by {envelope.type}")
        self._enter(0, kept, _key(event, envelope), emit)

    def done(self, step: Step, kept: Kept, event: Any, envelope: Envelope, emit: Emit) -> None:
        """A command was carried out. If the saga has failed meanwhile, it is undone."""
        if kept.status in ("new", "completed") or (kept.status == "running" and kept.step != step.name):
            return
        assert step.done is not None
        kept.note(f"{step.name}: {envelope.type}")
        receipt = Receipt(step=step.name, reply=step.done.encode(event).decode(), has_undo=step.undo is not None)
        if kept.status != "running":
            self._undo_late(step, kept, receipt, emit)
            return
        kept.receipts.append(receipt)
        if step.learn is not None:
            step.learn(kept.data, event)
        kept.awaited -= 1
        if kept.awaited == 0:
            self._leave(step, _key(event, envelope), emit)
            self._enter(self.steps.index(step) + 1, kept, _key(event, envelope), emit)

    def failed(self, step: Step, kept: Kept, event: Any, envelope: Envelope, emit: Emit) -> None:
        """A command was refused: the saga has failed."""
        if kept.status == "running" and kept.step == step.name:
            reason = str(getattr(event, "reason", None) or envelope.type)
            kept.note(f"{step.name}: {envelope.type} ({reason})")
            self._leave(step, _key(event, envelope), emit)
            self._compensate(kept, reason, emit)

    def timed_out(self, kept: Kept, event: Any, envelope: Envelope, emit: Emit) -> None:
        """The time of a step is up: the saga has failed, unless the step is over."""
        if kept.status == "running" and kept.step == event.step:
            kept.has_timed_out = True
            kept.note(f"{event.step}: no answer in time")
            self._compensate(kept, f"{event.step} was not answered in time", emit)

    def abandoned(self, kept: Kept, event: Any, envelope: Envelope, emit: Emit) -> None:
        """Somebody ends the saga while it is running."""
        if kept.status != "running":
            return
        reason = str(getattr(event, "reason", None) or envelope.type)
        kept.note(f"abandoned: {envelope.type} ({reason})")
        if (step := self.step(kept.step)) is not None:
            self._leave(step, _key(event, envelope), emit)
        self._compensate(kept, reason, emit)

    def undone(self, step: Step, kept: Kept, event: Any, envelope: Envelope, emit: Emit) -> None:
        """An undo was carried out, and the next one follows."""
        if kept.status == "compensating" and kept.step == step.name:
            kept.note(f"{step.name}: {envelope.type}")
            kept.awaited -= 1
            if kept.awaited == 0:
                self._undo(kept, emit)

    # What follows

    def _enter(self, index: int, kept: Kept, key: str, emit: Emit) -> None:
        """Begin the step, or the next one if this one waits for nothing; after the last one the saga is completed."""
        for step in self.steps[index:]:
            commands = events_of(step.commands(kept.data))
            kept.note(f"{step.name}: sends {_names(commands)}")
            for command in commands:
                emit(command)
            if step.done is None or not commands:
                continue
            kept.step, kept.awaited = step.name, len(commands)
            if step.seconds is not None:
                emit(self.timed_out_model(saga=key, step=step.name), key=key, after=step.seconds, name=step.name)
            return
        kept.status, kept.step, kept.receipts = "completed", None, []
        kept.note("completed")
        for event in events_of(self.completed(kept.data) if self.completed else None):
            emit(event)

    def _leave(self, step: Step, key: str, emit: Emit) -> None:
        if step.seconds is not None:
            emit.cancel(self.timed_out_model, key, step.name)

    def _compensate(self, kept: Kept, reason: str, emit: Emit) -> None:
        kept.status, kept.reason = "compensating", reason
        self._undo(kept, emit)

    def _undo(self, kept: Kept, emit: Emit) -> None:
        """Undo what was done, the last success first, up to one that is waited for.

        Raises: ValueError (a step that was carried out, or its undo, is not declared any more).
        """
        kept.step, kept.awaited = None, 0
        while kept.receipts:
            receipt = kept.receipts.pop()
            step = self.step(receipt.step)
            if step is None:
                raise self._gone(receipt, "no step of this name")
            commands = self._undo_one(step, kept, receipt, emit)
            if step.undone is not None and commands:
                kept.step, kept.awaited = step.name, commands
                return
        kept.status = "timed_out" if kept.has_timed_out else "compensated"
        kept.note(f"{kept.status}: {kept.reason}")
        for event in events_of(self.compensated(kept.data, kept.reason or "") if self.compensated else None):
            emit(event)

    def _undo_late(self, step: Step, kept: Kept, receipt: Receipt, emit: Emit) -> None:
        """Undo a success that was told too late: next, or at once if the saga has ended."""
        if kept.has_ended:
            self._undo_one(step, kept, receipt, emit)
        else:
            kept.receipts.append(receipt)

    def _undo_one(self, step: Step, kept: Kept, receipt: Receipt, emit: Emit) -> int:
        if step.undo is None or step.done is None:
            if receipt.has_undo:
                raise self._gone(receipt, "no undo of it")
            return 0
        commands = events_of(step.undo(kept.data, step.done.decode(receipt.reply.encode())))
        kept.note(f"{step.name}: undo sends {_names(commands)}")
        for command in commands:
            emit(command)
        return len(commands)

    def _gone(self, receipt: Receipt, what: str) -> ValueError:
        return ValueError(
            f"the step {receipt.step!r} was carried out and is to be undone, but the saga {self.name!r} has {what} any "
            "more; declare it again until no saga that has passed it is open, and replay."
        )


def events_of(returned: Any) -> list[Any]:
    """Return what a function returned as a list of events."""
    if returned is None:
        return []
    return list(returned) if isinstance(returned, Iterable) and event_type_of(returned) is None else [returned]


def _names(events: list[Any]) -> str:
    found = [each.type if (each := event_type_of(event)) is not None else type(event).__name__ for event in events]
    return ", ".join(found) or "nothing"


def _key(event: Any, envelope: Envelope) -> str:
    event_type = event_type_of(event)
    assert event_type is not None
    return event_key(envelope, event_type, event)
