"""What a team's code declares: event types, subscriptions and decoders of foreign topics."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import CodeType
from typing import Any, Unpack

from headrace.aggregates.aggregate import Aggregate
from headrace.errors import ConfigurationError
from headrace.event import EventType, event_type_of
from headrace.handlers.effect import EffectOptions
from headrace.handlers.middleware import Middleware
from headrace.handlers.policy import PolicyOptions
from headrace.handlers.subscription import Start, Subscription
from headrace.log.ports import Record
from headrace.order.declared import Order
from headrace.projections.projection import Projection
from headrace.sagas.saga import DataT, Saga
from headrace.schema_registry.decoder import SchemaDecoder
from headrace.settings import Settings
from headrace.tasks.task import SUBSCRIPTION, Task
from headrace.windows.windows import Windows

Decoder = Callable[[Record], object]
"""Record of a foreign topic -> an instance of a declared event type, or None to skip the record.

What it raises makes the record a dead letter.
"""

_SERVICE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""No dot, since `<service>.<subscription>` names the consumer group and what the tables call the subscription."""


class Registry:
    """The declarations of one service, filled while its modules are imported.

    Raises: ConfigurationError (the service's name).
    """

    def __init__(self, service: str) -> None:
        if not _SERVICE.fullmatch(service):
            raise ConfigurationError(
                f"Headrace({service!r}): a service's name has 1 to 63 of a-z, 0-9, '_', '-' "
                'and starts with a letter or digit, such as "shop".'
            )
        self.service = service
        self.types: dict[str, EventType] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.sagas: dict[str, Saga[Any]] = {}
        self.windows: dict[str, Windows[Any]] = {}
        self.tasks: dict[str, Task[..., Any]] = {}
        self.projections: dict[str, Projection] = {}
        self.aggregates: dict[str, type[Aggregate[Any]]] = {}
        """By the name of their streams."""
        self.decoders: dict[str, Decoder] = {}
        self.middlewares: list[Middleware] = []
        """In the order of their declarations: the last is the outermost."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic that the declared types live on, sorted."""
        return tuple(sorted({event_type.topic for event_type in self.types.values()}))

    @property
    def schema_decoders(self) -> dict[str, SchemaDecoder]:
        """The decoders that need a schema registry, by topic."""
        return {topic: each for topic, each in self.decoders.items() if isinstance(each, SchemaDecoder)}

    def add_decoder(self, topic: str, decoder: Decoder) -> None:
        """Declare what reads the records of a foreign topic. Raises: ConfigurationError (another one)."""
        if topic in self.decoders:
            raise ConfigurationError(f"topic {topic!r} has two decoders; keep one.")
        self.decoders[topic] = decoder
        if isinstance(decoder, SchemaDecoder):
            for model in decoder.models:
                self.add_type(model)

    def add_type(self, model: type[Any]) -> EventType:
        """Make a declared model known. Raises: ConfigurationError (not declared, or another model has its type)."""
        event_type = event_type_of(model)
        if event_type is None:
            raise ConfigurationError(
                f"{model.__name__} is not an event type; declare it as "
                f'class {model.__name__}(Event, type="...", topic="...").'
            )
        known = self.types.setdefault(event_type.type, event_type)
        if known is not event_type:
            raise ConfigurationError(
                f"two classes have the type {event_type.type!r}: {known.model.__qualname__} and "
                f"{event_type.model.__qualname__}; a type has one class."
            )
        return event_type

    def add_aggregate(self, aggregate: type[Aggregate[Any]]) -> None:
        """Make an aggregate and its events known. Raises: ConfigurationError (no events, two of one stream)."""
        name = aggregate.__name__
        if not aggregate.appliers:
            raise ConfigurationError(f"the aggregate {name} has no event; add a method with @applies(Event).")
        known = self.aggregates.setdefault(aggregate.stream, aggregate)
        if known is not aggregate:
            raise ConfigurationError(
                f"the aggregates {known.__name__} and {name} have the same streams, {aggregate.stream!r}; write "
                f"class {name}(Aggregate[...], stream=...) with another name."
            )
        for event_type, _ in aggregate.appliers.values():
            self.add_type(event_type.model)

    def add_subscription(
        self, name: str, start: Start, order: Order | None = None, **options: Unpack[PolicyOptions]
    ) -> Subscription:
        """Declare a subscription. Raises: ConfigurationError (bad or taken name, a wrong option)."""
        self._check_free(name)
        subscription = Subscription(name, start, service=self.service, order=order, **options)
        self.subscriptions[name] = subscription
        return subscription

    def add_saga(self, name: str, model: type[DataT], **options: Unpack[PolicyOptions]) -> Saga[DataT]:
        """Declare a saga. Raises: ConfigurationError (bad or taken name, data that are no model, a wrong option)."""
        saga = Saga(self.add_subscription(name, "earliest", **options), model, self.service)
        self.sagas[name] = saga
        return saga

    def add_task(self, task: Task[..., Any], options: EffectOptions) -> None:
        """Declare a task: an effect of the subscription `tasks`. Raises: ConfigurationError (taken name, option)."""
        if task.name in self.tasks:
            raise ConfigurationError(f"task {task.name!r} is declared twice; give one of them another name=.")
        if not self.tasks:
            self.add_subscription(SUBSCRIPTION, "earliest")
        self.subscriptions[SUBSCRIPTION].effect(task.model, **options)(task.effect())
        self.tasks[task.name] = task

    def add_windows(self, name: str, model: type[DataT], options: PolicyOptions, **shape: Any) -> Windows[DataT]:
        """Declare windows. Raises: ConfigurationError (bad or taken name, values that are no model, wrong times)."""
        made = Windows(self.add_subscription(name, "earliest", **options), model, self.service, **shape)
        self.windows[name] = made
        return made

    def add_projection(self, projection: Projection) -> None:
        """Declare a projection. Raises: ConfigurationError (its name, or that of its table, is taken)."""
        for other in self.projections.values():
            if other.table.name == projection.table.name:
                raise ConfigurationError(
                    f"the projections {other.name!r} and {projection.name!r} have the same table, "
                    f"{projection.table.name!r}; give one another name with table=."
                )
        self._check_free(projection.name)
        self.subscriptions[projection.name] = self.projections[projection.name] = projection

    def complete(self) -> None:
        """Take in the types that have handlers.

        Raises: ConfigurationError (clashing types, no handler, a handler that returns events of an unknown type).
        """
        emitted = {f"saga {name!r}": saga.check() for name, saga in self.sagas.items()}
        emitted |= {f"windows {name!r}": each.check() for name, each in self.windows.items()}
        for subscription in self.subscriptions.values():
            if not subscription.handlers:
                raise ConfigurationError(
                    f"subscription {subscription.name!r} has no handler; add @{subscription.name}.on(...) or remove it."
                )
            for event_type in subscription.event_types.values():
                self.add_type(event_type.model)
        for subscription in self.subscriptions.values():
            for handler in subscription.functions:
                for model in handler.signature.emits:
                    self._check_known(model, f"subscription {subscription.name!r}, handler {handler.name}")
        for subscription in self.subscriptions.values():
            for schedule in subscription.schedules.values():
                self._check_known(schedule.event_type.model, f"subscription {subscription.name!r}, a schedule")
        for where, models in emitted.items():
            for model in models:
                self._check_known(model, where)
        for subscription in self.subscriptions.values():
            subscription.wrap(self.middlewares)

    def follow(self, overrides: dict[Any, Callable[..., Any]]) -> None:
        """Let handlers call what FastAPI's `app.dependency_overrides` names, now and when it changes.

        Raises: ConfigurationError (see `Handler.follow`).
        """
        for subscription in self.subscriptions.values():
            for handler in subscription.functions:
                handler.overrides = overrides
                handler.follow()

    def handler_names(self) -> dict[CodeType, str]:
        """Return the handlers' names by the code of their functions, to recognise one on a stack."""
        return {
            handler.function.__code__: handler.name
            for subscription in self.subscriptions.values()
            for handler in subscription.functions
        }

    def _check_free(self, name: str) -> None:
        if name in self.subscriptions:
            raise ConfigurationError(f"the subscription {name!r} is declared twice; give one another name.")

    def _check_known(self, model: type[Any], where: str) -> None:
        """Refuse a returned class that is neither declared nor the base of a declared one."""
        if any(issubclass(event_type.model, model) for event_type in self.types.values()):
            return
        name = model.__name__
        advice = (
            f"write events.declare({name})"
            if event_type_of(model) is not None
            else f'declare it as class {name}(Event, type="...", topic="...")'
        )
        raise ConfigurationError(f"{where}: it returns {name}, which the service does not declare; {advice}.")


def check_subscriptions(settings: Settings, registry: Registry) -> None:
    """Refuse names that nobody declared, since nothing would run for them. Raises: ConfigurationError."""
    unknown = sorted(settings.subscription_names - registry.subscriptions.keys() - {"*"})
    if unknown:
        raise ConfigurationError(
            f"HEADRACE_SUBSCRIPTIONS names {', '.join(unknown)}, but the service declares "
            f"{', '.join(sorted(registry.subscriptions)) or 'no subscription'}; correct it, or write *."
        )


def check_schema_registry(settings: Settings, registry: Registry) -> None:
    """Refuse decoders by schemas without a registry. Raises: ConfigurationError."""
    if registry.schema_decoders and settings.schema_registry.url is None:
        raise ConfigurationError(
            f"the decoder of topic {min(registry.schema_decoders)!r} has schemas=, and no registry is named to ask for "
            "them: set HEADRACE_SCHEMA_REGISTRY_URL."
        )
