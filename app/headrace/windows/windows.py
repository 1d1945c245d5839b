"""What a team declares: `minutes = events.windows("minutes", Minute, size=timedelta(minutes=1))`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from headrace.cloudevents import event_key
from headrace.emits.emitter import Emitter
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError
from headrace.event import Event, EventType, event_type_of
from headrace.handlers.inject import Emit, State
from headrace.handlers.returns import returned_by
from headrace.handlers.subscription import Subscription
from headrace.windows.course import Course
from headrace.windows.kept import KeptWindows, kept_class

DataT = TypeVar("DataT", bound=BaseModel)
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

MOST_OPEN = 100
"""Windows that overlap at a time: each event is added to so many values, which are one state."""


class Windows(Generic[DataT]):
    """Windows of each key, as a subscription of its own; see `headrace.windows`."""

    def __init__(
        self,
        subscription: Subscription,
        model: type[DataT],
        service: str,
        *,
        size: timedelta,
        every: timedelta | None = None,
        lateness: timedelta = timedelta(0),
        ttl: timedelta | None = None,
        time: Callable[[Any], datetime] | None = None,
    ) -> None:
        where = f"windows {subscription.name!r}"
        if not _is_model(model):
            raise ConfigurationError(f"{where}: what is kept of one is a pydantic.BaseModel, not {model!r}.")
        try:
            model()
        except Exception as error:
            raise ConfigurationError(
                f"{where}: {model.__name__}() must work, since a window starts from it: give every field a default."
            ) from error
        every = size if every is None else every
        _check_times(where, size, every, lateness, ttl)
        self.subscription = subscription
        self.name = subscription.name
        self.course = Course(size, every, lateness)
        self._service, self._time = service, time
        self._kept = kept_class(model, ttl)
        self.course.value, self.course.forgets = model, ttl is not None
        self.course.opened = self._kept.model_fields["open"].annotation.__args__[0]  # type: ignore[union-attr]
        self._due: EventType | None = None
        self.functions: list[Callable[..., Any]] = []
        """The team's own functions, those that are declared."""

    def on(self, *models: type[Any]) -> Callable[[FunctionT], FunctionT]:
        """Declare how an event is added to a window: `def add(minute: Minute, event: ReadingTaken) -> None`."""

        def declare(function: FunctionT) -> FunctionT:
            self.functions.append(function)
            for model in models:
                self._react(model, function)
            return function

        return declare

    def closed(self, function: FunctionT) -> FunctionT:
        """Declare what a window comes to: `def close(minute: Minute, window: Window) -> MinuteMeasured`.

        It returns an event, a list of events, or None; it is called once for each window.
        """
        self.course.closed = function
        self.functions.append(function)
        return function

    def late(self, function: FunctionT) -> FunctionT:
        """Declare what an event comes to that is too late: `def note(event: ReadingTaken, window: Window)`.

        `window` is the latest one that it would have been in. What is returned is emitted.
        """
        self.course.late = function
        self.functions.append(function)
        return function

    def check(self) -> list[type[Any]]:
        """Return the events that it emits, also by its timers. Raises: ConfigurationError if it is not complete."""
        if self._due is None or self.course.closed is None:
            raise ConfigurationError(
                f"windows {self.name!r} take no event, or come to nothing; declare both: @{self.name}.on(Event) and "
                f"@{self.name}.closed."
            )
        functions = [each for each in (self.course.closed, self.course.late) if each is not None]
        return [self.course.due_model, *(model for each in functions for model in returned_by(each))]

    def _react(self, model: type[Any], add: Callable[[Any, Any], Any]) -> None:
        event_type = event_type_of(model)
        course, time = self.course, self._time

        def handler(event: Any, envelope: Envelope, kept: KeptWindows, emit: Emitter) -> None:
            at = time(event) if time is not None else envelope.time or datetime.now(UTC)
            if at.tzinfo is None:
                raise ValueError(f"the time {at} of the event has no zone; give it one, such as UTC")
            assert event_type is not None
            course.take(add, kept, event_key(envelope, event_type, event), event, at, emit)

        self._declare(handler, model, getattr(add, "__name__", "add"))
        if self._due is None:
            assert event_type is not None
            self._due = self._closing(event_type.topic)

    def _closing(self, topic: str) -> EventType:
        """Declare the timer that closes a window of a key that has fallen silent."""

        class WindowEnded(
            Event, type=f"{self._service}.{self.name}.window_ended", topic=topic, key="key", internal=True
        ):
            """The time of a window is over."""

            key: str
            end: datetime

        course = self.course
        course.due_model = WindowEnded

        def handler(event: WindowEnded, kept: KeptWindows, emit: Emitter) -> None:
            course.due(kept, event.key, event.end, emit)

        self._declare(handler, WindowEnded, "close_the_silent")
        event_type = event_type_of(WindowEnded)
        assert event_type is not None
        return event_type

    def _declare(self, handler: Callable[..., Any], model: type[Any], name: str) -> None:
        state: Any = State
        handler.__name__ = handler.__qualname__ = name
        asked = {"event": model, "envelope": Envelope, "kept": state[self._kept], "emit": Emit}
        handler.__annotations__ = {each: asked[each] for each in inspect.signature(handler).parameters} | {
            "return": None
        }
        self.subscription.on(model)(handler)


def _is_model(model: object) -> bool:
    return inspect.isclass(model) and issubclass(model, BaseModel)


def _check_times(where: str, size: timedelta, every: timedelta, lateness: timedelta, ttl: timedelta | None) -> None:
    nothing = timedelta(0)
    if not all(isinstance(each, timedelta) for each in (size, every, lateness)):
        raise ConfigurationError(f"{where}: size, every and lateness are timedeltas, such as timedelta(minutes=1).")
    if size <= nothing or not nothing < every <= size or lateness < nothing:
        raise ConfigurationError(
            f"{where}: size is above 0, every above 0 and at most size, so that no event is in no window, and lateness "
            "not below 0."
        )
    if size > every * MOST_OPEN:
        raise ConfigurationError(f"{where}: {size} holds more than {MOST_OPEN} windows that begin every {every}.")
    if ttl is not None and ttl <= size + lateness:
        raise ConfigurationError(f"{where}: ttl={ttl} would end before a window does; make it longer than a window.")
