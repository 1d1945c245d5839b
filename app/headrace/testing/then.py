"""What came of an event, as values that a test compares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from headrace.cloudevents import decode_record
from headrace.engine.verdict import DeadLetter, Park, verdict
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError, EventError
from headrace.event import EventType
from headrace.handlers import verdicts
from headrace.handlers.policy import Policy
from headrace.item import DEAD, SKIPPED, Item, Outcome
from headrace.log.ports import NewRecord
from headrace.timers.changes import SetTimer

T = TypeVar("T")

Fate = Literal["applied", "skipped", "retry", "waits", "held", "dead_letter"]


@dataclass(frozen=True)
class Timer:
    """An event that leaves later: `after` some time, or `at` a time."""

    event: Any
    after: timedelta | None = None
    at: datetime | None = None
    name: str | None = None
    key: str = field(default="", compare=False)


@dataclass(frozen=True)
class Sent:
    """An event that was emitted, with what surrounds it."""

    event: Any
    key: str
    topic: str
    envelope: Envelope
    record: NewRecord = field(repr=False, compare=False)


@dataclass(frozen=True)
class Step:
    """What one subscription made of one event."""

    subscription: str
    event: Any
    envelope: Envelope
    key: str | None
    handler: str | None
    fate: Fate
    """`retry`: it is tried again after `retry_seconds`; `waits`: it stands behind such an event of its key, or its
    sequence has a gap; `held`: its key waits until a person acts."""
    reason: str | None
    retry_seconds: float | None
    """The longest wait before the next attempt; chance may shorten it."""
    sent: list[Sent]
    timers: list[Timer]
    cancelled: list[tuple[str, str, str | None]]
    """(type, key, name) of timers that were cancelled; a name None stands for all of the type and key."""


@dataclass(frozen=True)
class Then:
    """What came of the events of one call, in order."""

    steps: list[Step]
    _read: Callable[[type[Any], str | None, str | None], Any] = field(repr=False)

    @property
    def emits(self) -> list[Any]:
        """The events that were emitted to leave now."""
        return [each.event for each in self.sent]

    @property
    def sent(self) -> list[Sent]:
        """The same with their keys, topics and envelopes."""
        return [each for step in self.steps for each in step.sent]

    @property
    def timers(self) -> list[Timer]:
        """The events that were emitted to leave later."""
        return [each for step in self.steps for each in step.timers]

    @property
    def cancelled(self) -> list[tuple[str, str, str | None]]:
        """The timers that were cancelled: (type, key, name)."""
        return [each for step in self.steps for each in step.cancelled]

    @property
    def fate(self) -> Fate:
        """What became of the event: `applied`, `skipped`, `retry`, `waits`, `held` or `dead_letter`.

        Raises: ConfigurationError if several events, or several subscriptions, fared differently: look at `steps`.
        """
        fates = {step.fate for step in self.steps}
        if len(fates) != 1:
            told = ", ".join(f"{step.subscription}: {step.fate}" for step in self.steps) or "no event was taken"
            raise ConfigurationError(f"there is no one fate ({told}); look at .steps.")
        return fates.pop()

    @property
    def reason(self) -> str | None:
        """Why the event was not applied; None if it was."""
        return next((step.reason for step in self.steps if step.reason is not None), None)

    @property
    def retry_seconds(self) -> float | None:
        """The longest wait before the event is tried again; None if it is not."""
        return next((step.retry_seconds for step in self.steps if step.retry_seconds is not None), None)

    def state(self, model: type[T], key: str | None = None, *, subscription: str | None = None) -> T:
        """Return the state of the last event's key, or of another; a key without one has the class's first value."""
        if key is None and self.steps:
            key = self.steps[-1].key
        value: T = self._read(model, key, subscription)
        return value


def step_of(
    item: Item,
    subscription: str,
    policy: Policy,
    types: dict[str, EventType],
    emits: Iterable[tuple[Item, NewRecord]],
    timers: Sequence[tuple[Item, Any]],
) -> Step:
    """Return what one subscription made of an item whose outcome is settled."""
    mine = [change for cause, change in timers if cause is item]
    fate, reason, seconds = _fate(item, policy)
    return Step(
        subscription=subscription,
        event=item.event,
        envelope=item.envelope,
        key=item.key,
        handler=item.handler.name if item.handler is not None else None,
        fate=fate,
        reason=reason,
        retry_seconds=seconds,
        sent=[sent_of(record, types) for cause, record in emits if cause is item],
        timers=[timer_of(each, types) for each in mine if isinstance(each, SetTimer)],
        cancelled=[(each.type, each.key, each.name) for each in mine if not isinstance(each, SetTimer)],
    )


def sent_of(record: NewRecord, types: dict[str, EventType]) -> Sent:
    """Return an emitted record as the event that its readers see."""
    envelope, data = decode_record(record, extensions=True)
    return Sent(types[envelope.type].decode(data), (record.key or b"").decode(), record.topic, envelope, record)


def timer_of(timer: SetTimer, types: dict[str, EventType]) -> Timer:
    """Return a timer as a test compares it; one without a name of its own has none."""
    sent = sent_of(timer.record, types)
    seconds, name = timer.due.after_seconds, timer.name if timer.name != sent.envelope.id else None
    after = None if seconds is None else timedelta(seconds=seconds)
    return Timer(sent.event, after, timer.due.at, name, timer.key)


def _fate(item: Item, policy: Policy) -> tuple[Fate, str | None, float | None]:
    if item.outcome is Outcome.APPLIED:
        return "applied", None, None
    cause = item.error.__cause__ if item.error is not None else None
    is_unreadable = isinstance(item.error, EventError)
    error = str(item.error if is_unreadable else cause or item.error or item.outcome.value)
    if item.outcome in SKIPPED:
        return "skipped", item.outcome.value, None
    if item.outcome in DEAD:
        return "dead_letter", error, None
    if item.outcome is Outcome.HELD:
        return "waits", error, policy.gap_seconds
    if item.outcome is Outcome.BEHIND_KEY:
        return "waits", "an earlier event of its key waits", None
    decided = verdict(item.outcome, item.attempt, policy, cause)
    if isinstance(decided, DeadLetter):
        return "dead_letter", error, None
    if isinstance(decided, Park) and decided.delay < float("inf"):
        return "retry", error, decided.delay
    return "held", error, None


def is_verdict(error: BaseException | None) -> bool:
    """True for an answer of a handler (`Retry`, `DeadLetter`, `Skip`), which is no failure."""
    return isinstance(error, verdicts.HandlerVerdict)
