"""Which events a service sends, as far as its declarations tell: for the `send` operations of the AsyncAPI document.

Return annotations tell what handlers and effects send, and the classes of events that a handler with `Emit` has in its
code. Sagas, windows, schedules and aggregates tell it themselves, with the events by which timers come back to them.
What a route or a script publishes, nothing tells.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.event import EventType, event_type_of

if TYPE_CHECKING:
    from headrace.handlers.subscription import Handler
    from headrace.registry import Registry


class Sender(NamedTuple):
    """What sends events; `types` are sorted by their name."""

    name: str
    summary: str
    types: list[EventType]


def senders(registry: Registry) -> Iterator[Sender]:
    """Yield what sends events, by name."""
    for name, subscription in sorted(registry.subscriptions.items()):
        models = [model for handler in subscription.functions for model in _sent_by(handler)]
        models += [schedule.event_type.model for schedule in subscription.schedules.values()]
        what = "subscription"
        if name in registry.sagas:
            what, models = "saga", models + registry.sagas[name].check()
        elif name in registry.windows:
            what, models = "windows", models + registry.windows[name].check()
        if types := _known(registry, models):
            yield Sender(name, f"The {what} {name} may send these events, each with the commit of its cause.", types)
    for stream, aggregate in sorted(registry.aggregates.items()):
        types = _known(registry, [event_type.model for event_type, _ in aggregate.appliers.values()])
        yield Sender(
            f"aggregate.{stream}", f"These events are appended to streams of {stream}, and sent in order.", types
        )


def _sent_by(handler: Handler) -> Iterable[type[Any]]:
    yield from handler.signature.emits
    if handler.signature.wants_emit:
        named = inspect.getclosurevars(inspect.unwrap(handler.function))
        for value in (*named.globals.values(), *named.nonlocals.values()):
            if inspect.isclass(value) and event_type_of(value) is not None:
                yield value


def _known(registry: Registry, models: Iterable[type[Any]]) -> list[EventType]:
    """Return the declared types of the models, and of what is derived from one."""
    found = {
        event_type.type: event_type
        for model in models
        for event_type in registry.types.values()
        if issubclass(event_type.model, model)
    }
    return [found[name] for name in sorted(found)]
