"""What a team declares: `class Account(Aggregate[Balance])`, its commands, and what each of its events changes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, get_args, get_origin

from headrace.aggregates.states import StateCodec
from headrace.errors import ConfigurationError
from headrace.event import EventType, event_type_of

StateT = TypeVar("StateT")
MethodT = TypeVar("MethodT", bound=Callable[..., Any])

APPLIES = "__headrace_applies__"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


class NewEvent(NamedTuple):
    """An event that an aggregate has emitted, and its data as JSON at that moment."""

    event: Any
    event_type: EventType
    data: bytes


class Aggregate(Generic[StateT]):
    """Something that is made of its events: `class Account(Aggregate[Balance])`, with a state that has defaults.

    Commands are its methods: they look at `self.state`, refuse by raising, and call `self.emit(event)`. Only methods
    with `@applies(Event)` change the state, since they are called again whenever the aggregate is loaded.

    `stream` names its streams (default: the class's name in lower case), `snapshot_every` keeps a snapshot of the state
    after so many events, and `version` is to be raised when a method with `@applies` changes its mind about the past:
    snapshots of another version are not read.
    """

    stream: ClassVar[str] = ""
    snapshot_every: ClassVar[int | None] = None
    codec: ClassVar[StateCodec | None] = None
    """How the state is kept in a snapshot; None for a base class of a team's own."""
    appliers: ClassVar[dict[str, tuple[EventType, Callable[[Any, Any], None]]]] = {}
    """What each of its events changes, by type."""

    def __init_subclass__(
        cls, *, stream: str | None = None, version: int = 1, snapshot_every: int | None = None
    ) -> None:
        """Read the declaration. Raises: ConfigurationError (no state, a wrong name, two methods for one event)."""
        super().__init_subclass__()
        cls.stream = _checked_name(cls.__name__, stream)
        cls.appliers = _appliers(cls)
        if snapshot_every is not None and snapshot_every < 1:
            raise ConfigurationError(f"{cls.__name__}: snapshot_every={snapshot_every!r} must be at least 1.")
        cls.snapshot_every = snapshot_every
        model = _state_class(cls)
        if model is not None:
            cls.codec = StateCodec(cls.__name__, model, version)

    def __init__(self, key: str) -> None:
        if self.codec is None:
            name = type(self).__name__
            raise ConfigurationError(f"{name} has no state; write class {name}(Aggregate[State]), with a model of it.")
        self.key = key
        self.version = 0
        """The version of its last stored event; 0: there is none."""
        self.state: StateT = self.codec.create()
        self.new_events: list[NewEvent] = []
        """What it has emitted and not saved."""

    @property
    def emitted(self) -> list[Any]:
        """The events that it has emitted and not saved, as a test of a command wants them."""
        return [each.event for each in self.new_events]

    def emit(self, event: object) -> None:
        """Apply the event; it is stored, and leaves, when the aggregate is saved.

        The event is written as JSON at once: later changes of the object have no effect.
        Raises: ConfigurationError (no method applies it), SchemaError.
        """
        event_type = event_type_of(event)
        name = type(event).__name__
        if event_type is None or event_type.type not in self.appliers:
            raise ConfigurationError(
                f"{type(self).__name__} emits {name}, which none of its methods applies; add a method with "
                f"@applies({name})."
            )
        data = event_type.encode(event)
        self.appliers[event_type.type][1](self, event)
        self.new_events.append(NewEvent(event, event_type, data))

    def restore(self, state: StateT, version: int) -> None:
        """Take the state of a snapshot."""
        self.state, self.version = state, version

    def replay(self, type: str, event: object, version: int) -> None:
        """Apply a stored event. Raises: ConfigurationError (no method applies it)."""
        if type not in self.appliers:
            raise ConfigurationError(
                f"the stream {self.stream!r} of {self.key!r} has at version {version} the event {type}, which no "
                f"method of {self.__class__.__name__} applies; add one with @applies."
            )
        self.appliers[type][1](self, event)
        self.version = version


def applies(model: type[Any]) -> Callable[[MethodT], MethodT]:
    """Declare a method as what an event changes: `@applies(MoneyWithdrawn)`. Raises: ConfigurationError."""
    event_type = event_type_of(model)
    if event_type is None or not isinstance(model, type):
        name = getattr(model, "__name__", repr(model))
        raise ConfigurationError(
            f'@applies({name}): {name} is not an event type; declare it as class {name}(Event, type="...", '
            'topic="...").'
        )

    def declare(method: MethodT) -> MethodT:
        if inspect.iscoroutinefunction(method):
            raise ConfigurationError(
                f"{method.__qualname__}: what an event changes cannot wait for anything; make it a plain `def`."
            )
        setattr(method, APPLIES, event_type)
        return method

    return declare


def _checked_name(class_name: str, stream: str | None) -> str:
    name = class_name.lower() if stream is None else stream
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{class_name}: stream={name!r} has to have 1 to 100 of a-z, 0-9, '.', '_', '-' and to start with a "
            "letter or digit."
        )
    return name


def _appliers(cls: type[Any]) -> dict[str, tuple[EventType, Callable[[Any, Any], None]]]:
    found: dict[str, tuple[EventType, Callable[[Any, Any], None]]] = {}
    for owner in reversed(cls.__mro__):
        own: set[str] = set()
        for method in vars(owner).values():
            event_type: EventType | None = getattr(method, APPLIES, None)
            if event_type is None:
                continue
            if event_type.type in own:
                raise ConfigurationError(f"{cls.__name__}: two methods apply {event_type.type}; keep one.")
            own.add(event_type.type)
            found[event_type.type] = (event_type, method)
    return found


def _state_class(cls: type[Any]) -> type[Any] | None:
    """Return the class in `Aggregate[...]`; None if it is inherited, or a base class leaves it open."""
    for base in vars(cls).get("__orig_bases__", ()):
        origin = get_origin(base)
        if isinstance(origin, type) and issubclass(origin, Aggregate):
            (model, *_) = get_args(base)
            return None if isinstance(model, TypeVar) else model
    return None
