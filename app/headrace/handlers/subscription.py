"""A subscription: a named set of handlers with progress of its own (one consumer group)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, Unpack

from headrace.errors import ConfigurationError
from headrace.event import EventType, event_type_of
from headrace.handlers.effect import EffectLimits, EffectOptions, check_effect, split
from headrace.handlers.middleware import Around, HandlerName, Kind, Middleware
from headrace.handlers.policy import PolicyOptions, checked, inherited
from headrace.handlers.signature import Overrides, Signature, names_in
from headrace.order.declared import Order, check_order
from headrace.order.state import ORDER_STATE, HeadraceOrder
from headrace.state.codec import StateType
from headrace.tables.table import TableType
from headrace.timers.schedule import Schedule

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
Start = Literal["earliest", "latest"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


Way: TypeAlias = "bool | Handler"
"""How a handler is called: on the event loop (True), in a thread (False), or with a list of events (the handler)."""


class HandlerOptions(PolicyOptions, total=False):
    """The options of a handler: those of its policy, and of a batch handler how much it takes."""

    most_events: int
    """The most events of one list; as many as it can do in a fraction of a second if it is left out."""


class Handler:
    """One handler of a subscription, ready to be called."""

    __slots__ = (
        "_followed",
        "_names",
        "around",
        "call",
        "dependencies",
        "function",
        "is_async",
        "is_batch",
        "is_wrapped",
        "most_events",
        "name",
        "options",
        "order",
        "overrides",
        "signature",
        "state_names",
        "timeout_seconds",
        "way",
    )

    def __init__(self, function: Callable[..., Any], names: Mapping[str, Any]) -> None:
        """`names` are the local ones of the place where it was declared."""
        self.function = function
        self._names = names
        self.overrides: Overrides = {}
        """FastAPI's `app.dependency_overrides`, once the application has started."""
        self._followed: Overrides = {}
        self.around: Around | None = None
        """The middlewares; None without any."""
        self.most_events: int | None = None
        """The longest list that a batch handler takes; None: any."""
        self.order: Order | None = None
        """What its subscription does about events that come late, or too early."""
        self._take(Signature(function, names))
        self.set_options({})

    def set_options(self, options: Mapping[str, Any]) -> None:
        """Take the options of its policy, its own over the subscription's; the settings have what is missing."""
        self.options = options
        self.timeout_seconds: float | None = options.get("timeout_seconds")
        """How long a call may take; None: as the settings say."""

    def wrap(self, subscription: str, kind: Kind, middlewares: Sequence[Middleware]) -> None:
        """Call it within the middlewares from now on."""
        name = HandlerName(subscription, self.name, kind, is_async=self.is_async)
        self.around = Around(name, middlewares) if middlewares else None
        self._note_wrapping()

    def keep_order(self, order: Order) -> None:
        """Let the order be asked before each call; what it knows of a key is the last of the handler's states."""
        self.order = order
        self._take(self.signature)

    def follow(self) -> None:
        """Call what the application's `dependency_overrides` say from now on.

        Raises: ConfigurationError (an override that asks for a state or a transaction that the handler does not).
        """
        if self.overrides == self._followed:
            return
        wanted = dict(self.overrides)
        signature = Signature(self.function, self._names, overrides=wanted)
        more = {state.name for state in signature.states} - set(self.state_names)
        if more or (signature.wants_transaction and not self.signature.wants_transaction):
            raise ConfigurationError(
                f"{self.name}: an entry of app.dependency_overrides asks for a State or a Transaction that the handler "
                "and its own dependencies do not ask for; let the override do without."
            )
        self._take(signature)
        self._followed = wanted

    def _take(self, signature: Signature) -> None:
        self.signature = signature
        self.call = signature.call
        self.name = signature.name
        self.is_async = signature.is_async
        self.is_batch = signature.is_batch
        self.way: Way = self if signature.is_batch else signature.is_async
        self.dependencies = signature.dependencies
        names = tuple(state.name for state in signature.states)
        self.state_names: tuple[str, ...] = names if self.order is None else (*names, ORDER_STATE)
        self._note_wrapping()

    def _note_wrapping(self) -> None:
        self.is_wrapped = bool(self.dependencies) or self.around is not None or self.order is not None
        """True if a call is more than `call`."""


class Effect:
    """A function that calls the outside, for events whose transaction has committed.

    `start` stands for it among the handlers: it does nothing, and the call begins behind the commit of its batch.
    """

    def __init__(self, function: Callable[..., Any], names: Mapping[str, Any], limits: EffectLimits) -> None:
        self.handler = Handler(function, names)
        check_effect(self.handler.signature)
        self.limits = limits
        self.start = Handler(_start, {})
        self.start.name = f"start of {self.handler.name}"


def _start() -> None:
    """Do nothing."""


class Subscription:
    """A named set of handlers: the unit of scaling, pausing and ownership.

    The name is its identity: claims, ledger and state belong to it. A renamed subscription begins at `start` with empty
    states, and the rows of the old name stay in the database.
    """

    table: TableType | None = None
    """What a projection writes; None for every other subscription."""

    def __init__(
        self,
        name: str,
        start: Start = "earliest",
        *,
        service: str,
        order: Order | None = None,
        **options: Unpack[PolicyOptions],
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"subscription {name!r}: a name has 1 to 100 of a-z, 0-9, '.', '_', '-' "
                "and starts with a letter or digit."
            )
        if name == "outbox":
            raise ConfigurationError("subscription 'outbox': dead letters of routes have this name; choose another.")
        self.name = name
        self.group = f"{service}.{name}"
        """The name outside of this service: the consumer group, and `subscription` in every table of the platform."""
        self.start: Start = start
        self.order = order
        """What is done about events that come late, or too early; None: all run as they come."""
        self.options = checked(options, f"subscription {name!r}")
        """The options of the policies of its handlers, as far as they have none of their own."""
        self.handlers: dict[str, Handler] = {}
        self.effects: dict[str, Effect] = {}
        """By event type, as the handlers are."""
        self.event_types: dict[str, EventType] = {}
        self.states: dict[str, StateType] = {}
        if order is not None:
            check_order(order, f"subscription {name!r}")
            self.states[ORDER_STATE] = StateType(HeadraceOrder)
        self.schedules: dict[str, Schedule] = {}
        self._source = f"/{service}/{name}"

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics of the handled types, sorted."""
        return tuple(sorted({event_type.topic for event_type in self.event_types.values()}))

    @property
    def wants_envelope(self) -> bool:
        """True if a handler reads the envelope, so that unknown extensions are worth decoding."""
        return any(handler.signature.wants_envelope for handler in self.functions)

    @property
    def functions(self) -> list[Handler]:
        """The team's functions: handlers, and what effects call."""
        starts = {effect.start for effect in self.effects.values()}
        own = [each for each in dict.fromkeys(self.handlers.values()) if each not in starts]
        return own + list(dict.fromkeys(effect.handler for effect in self.effects.values()))

    def wrap(self, middlewares: Sequence[Middleware]) -> None:
        """Call every function of the team's within the middlewares from now on."""
        effects = {effect.handler for effect in self.effects.values()}
        for each in self.functions:
            kind: Kind = "effect" if each in effects else "batch handler" if each.is_batch else "handler"
            each.wrap(self.name, kind, middlewares)

    def types_of(self, function: Handler) -> list[str]:
        """Return the event types that one of the team's functions takes."""
        handled = [name for name, each in self.handlers.items() if each is function]
        return handled + [name for name, each in self.effects.items() if each.handler is function]

    def on(self, *models: type[Any], **options: Unpack[HandlerOptions]) -> Callable[[FunctionT], FunctionT]:
        """Declare a function as the handler of event types: `@wallets.on(WalletCredited)`.

        The options say what is done if it fails: `@wallets.on(WalletCredited, attempts=3, permanent=KeyError)`; the
        others are those of the subscription, and then those of the settings.

        A function of `list[WalletCredited]` is a batch handler. Each list has events that follow each other in one
        partition, in their order, so that those of a key come in theirs; it ends before an event of another handler of
        the subscription. What the call does commits as a whole. If it raises, the list is halved until the event that
        makes it raise is alone: only that one's key waits. A parked event comes again in a list of its own.
        Raises: ConfigurationError if the signature asks for what cannot be injected, a type already has a handler, or
        an option is wrong.
        """
        event_types = self._declared(models)
        local_names = names_in(sys._getframe(1))

        def declare(function: FunctionT) -> FunctionT:
            self._add(function, event_types, local_names, options)
            return function

        return declare

    def effect(self, *models: type[Any], **options: Unpack[EffectOptions]) -> Callable[[FunctionT], FunctionT]:
        """Declare a function that calls the outside for event types: `@mails.effect(OrderConfirmed)`.

        It is called behind the commit of the batch that took the event, in order per key, with many keys at once, and
        at least once: a process that dies leaves the call to the next owner, with the same `step.key`. The events that
        it returns leave when it is done. The options are those of a handler, `concurrency` and `per_second`.
        Cancel: a call under way is cancelled at its time limit, and when the process ends.
        Raises: ConfigurationError, as `on` does.
        """
        event_types = self._declared(models)
        local_names = names_in(sys._getframe(1))

        def declare(function: FunctionT) -> FunctionT:
            if self.table is not None:
                raise ConfigurationError(
                    f"the projection {self.name!r} writes rows and nothing else; give the effect another subscription."
                )
            where = f"subscription {self.name!r}, effect {getattr(function, '__qualname__', function)}"
            limits, policy = split(options, where)
            effect = Effect(function, local_names, limits)
            effect.handler.set_options(inherited(self.options, checked(policy, where)))
            if self.order is not None:
                for each in (effect.start, effect.handler):
                    each.keep_order(self.order)
            for event_type in event_types:
                self._check_free(event_type, where)
                _check_all_take(effect.handler.signature, event_type, where)
                self.handlers[event_type.type] = effect.start
                self.effects[event_type.type] = effect
                self.event_types[event_type.type] = event_type
            return function

        return declare

    def schedule(self, event: object, cron: str, *, timezone: str = "UTC") -> None:
        """Let the event leave at each time that a cron expression names: `schedule(ReportDue(), "0 9 * * mon-fri")`.

        Each time has one event, whose `time` it is. Times that pass while no worker runs come to one event.
        Raises: ConfigurationError (no event, a wrong expression, no such time zone).
        """
        schedule = Schedule(self._source, event, cron, timezone)
        self.schedules[schedule.name] = schedule

    def _declared(self, models: tuple[Any, ...]) -> list[EventType]:
        if not models:
            raise ConfigurationError(
                f"subscription {self.name!r}: name the event types that the handler takes: .on(WalletCredited)."
            )
        event_types = []
        for model in models:
            event_type = event_type_of(model) if isinstance(model, type) else None
            if event_type is None:
                name = getattr(model, "__name__", repr(model))
                advice = (
                    f'declare it as class {name}(Event, type="...", topic="...")'
                    if isinstance(model, type)
                    else "write the class in parentheses: .on(WalletCredited)"
                )
                raise ConfigurationError(f"subscription {self.name!r}: {name} is not an event type; {advice}.")
            event_types.append(event_type)
        return event_types

    def _add(
        self,
        function: Callable[..., Any],
        event_types: list[EventType],
        names: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        handler = Handler(function, names)
        signature = handler.signature
        where = f"subscription {self.name!r}, handler {handler.name}"
        own = dict(options)
        handler.most_events = _most_events(own, handler, where)
        handler.set_options(inherited(self.options, checked(own, where)))
        if self.order is not None:
            if signature.is_batch:
                raise ConfigurationError(
                    f"{where}: a batch handler cannot have an order, which decides about one event after the other; "
                    "take the event, or leave out order= of the subscription."
                )
            handler.keep_order(self.order)
        for state in signature.states:
            known = self.states.setdefault(state.name, state)
            if known.model is not state.model:
                raise ConfigurationError(
                    f"{where}: two states are named {state.name!r} ({known.model.__qualname__}, "
                    f"{state.model.__qualname__}); rename one class, since its lower-case name is its identity."
                )
        for model in signature.tables:
            if self.table is None or self.table.model is not model:
                raise ConfigurationError(
                    f"{where}: Table[{model.__name__}] is for the handlers of a projection of {model.__name__}; write "
                    f"events.projection({self.name!r}, {model.__name__}, key=...)."
                )
        if signature.wants_step:
            raise ConfigurationError(
                f"{where}: a Step is for effects, which call the outside; declare it with @{self.name}.effect(...)."
            )
        for event_type in event_types:
            _check_all_take(signature, event_type, where)
            self._check_free(event_type, where)
            self.handlers[event_type.type] = handler
            self.event_types[event_type.type] = event_type

    def _check_free(self, event_type: EventType, where: str) -> None:
        if event_type.type in self.effects:
            raise ConfigurationError(
                f"{where}: {event_type.type} already has the effect {self.effects[event_type.type].handler.name}; use "
                "another subscription, or let a handler emit an event for the effect."
            )
        if event_type.type in self.handlers:
            raise ConfigurationError(
                f"{where}: {event_type.type} already has the handler {self.handlers[event_type.type].name}; "
                "call one from the other, or use another subscription."
            )


def _most_events(options: dict[str, Any], handler: Handler, where: str) -> int | None:
    """Take the longest list that a batch handler is given out of its options."""
    if "most_events" not in options:
        return None
    most = options.pop("most_events")
    if not handler.is_batch:
        raise ConfigurationError(f"{where}: most_events is for handlers of a list: events: list[WalletCredited].")
    if type(most) is not int or most < 1:
        raise ConfigurationError(f"{where}: most_events={most!r} is wrong; it is a number from 1 on.")
    return most


def _check_all_take(signature: Signature, event_type: EventType, where: str) -> None:
    for each in (signature, *(dependency.signature for dependency in signature.dependencies)):
        _check_takes(each, event_type, where)


def _check_takes(signature: Signature, event_type: EventType, where: str) -> None:
    """Refuse a function whose event parameter is of another class than the handled one."""
    if signature.events and not issubclass(event_type.model, signature.events):
        shown = " | ".join(model.__name__ for model in signature.events)
        raise ConfigurationError(
            f"{where}: the event parameter of {signature.name} is a {shown}, but the handler is declared for "
            f"{event_type.model.__name__}; make both the same."
        )
