"""What handlers do to timers, as values: set one, cancel some. The last change of a batch to a timer counts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from headrace.cloudevents import check_key
from headrace.durations import LONGEST_SECONDS
from headrace.errors import ConfigurationError
from headrace.event import event_type_of
from headrace.log import stored
from headrace.log.ports import NewRecord

EARLIEST, LATEST = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
"""Between these a time is one in Postgres whatever its zone: Python's last one would be infinity there."""


class Due(NamedTuple):
    """When a timer is due: some seconds after its transaction, by the clock of Postgres, or at a time."""

    after_seconds: float | None
    at: datetime | None

    @property
    def time(self) -> datetime:
        """The event's `time`: about when it is due."""
        return self.at or datetime.now(UTC) + timedelta(seconds=self.after_seconds or 0.0)


class SetTimer(NamedTuple):
    """A timer to be set, in the place of one with the same type, key and name."""

    type: str
    key: str
    name: str
    due: Due
    record: NewRecord
    cron: str | None = None
    """What its schedule is; None: it has none."""


class CancelTimers(NamedTuple):
    """Timers to be cancelled: the one of that name, or all of the type and key."""

    type: str
    key: str
    name: str | None


Change = SetTimer | CancelTimers


class Changes(NamedTuple):
    """The changes of a batch: what is cancelled first, then what is set."""

    cancelled: list[CancelTimers]
    set: list[SetTimer]


def due(after: object, at: datetime | None, name: object) -> Due | None:
    """Return when a timer is due; None if nothing of a timer is given: the event leaves now.

    Raises: ConfigurationError that says what to write.
    """
    if after is None and at is None and name is None:
        return None
    if (after is None) == (at is None):
        raise ConfigurationError("a timer is due either after= some time or at= a time; give one of the two.")
    check_name(name)
    if at is not None:
        if at.tzinfo is None:
            raise ConfigurationError(f"emit(at={at!r}): the time has no zone; write datetime(..., tzinfo=UTC).")
        if not EARLIEST <= at < LATEST:
            raise ConfigurationError(f"emit(at={at!r}): a timer is due in one of the years 2 to 9998, in UTC.")
        return Due(None, at)
    seconds = after.total_seconds() if isinstance(after, timedelta) else after
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= LONGEST_SECONDS:
        raise ConfigurationError(
            f"emit(after={after!r}): it is a timedelta, or a number of seconds, from 0 to a hundred years."
        )
    return Due(float(seconds), None)


def cancelling(model: type[object], key: str, name: str | None, *, call: str) -> CancelTimers:
    """Return what `call` cancels. Raises: ConfigurationError (no event type, a wrong name), SchemaError (the key)."""
    event_type = event_type_of(model)
    if event_type is None:
        raise ConfigurationError(f"{call}({model!r}, ...): it takes the class of an event type, and its key.")
    check_name(name)
    return CancelTimers(event_type.type, check_key(key), name)


def check_name(name: object) -> None:
    """Raise ConfigurationError if a timer cannot have the name."""
    if name is not None:
        stored.check_name(name, "timer")
    if isinstance(name, str) and name.startswith("cron:"):
        raise ConfigurationError(f"a timer's name does not begin with cron:, as schedules do, and {name!r} does.")


def folded(changes: Iterable[Change]) -> Changes:
    """Return what the changes come to, in an order that two transactions share."""
    cancelled: dict[CancelTimers, None] = {}
    timers: dict[tuple[str, str], dict[str, SetTimer]] = {}
    for change in changes:
        named = timers.setdefault((change.type, change.key), {})
        if isinstance(change, SetTimer):
            named[change.name] = change
            continue
        cancelled[change] = None
        if change.name is None:
            named.clear()
        else:
            named.pop(change.name, None)
    last = sorted((timer for named in timers.values() for timer in named.values()), key=lambda timer: timer[:3])
    return Changes(sorted(cancelled, key=lambda gone: (gone.type, gone.key, gone.name or "")), last)
