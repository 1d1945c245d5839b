"""Which events a subscription takes as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from headrace.event import EventType
from headrace.handlers.subscription import Handler, Subscription


class Taken(NamedTuple):
    """What is done with the events of one type and `dataschema`."""

    type: str
    dataschema: str | None
    event_type: EventType
    handler: Handler
    decode: Callable[[bytes], Any]
    key_field: str | None


def taken_by(subscription: Subscription, types: Mapping[str, EventType]) -> list[Taken]:
    """Return the kinds of events that go to a handler without a question: of today's version, in no order."""
    taken: list[Taken] = []
    for name, handler in subscription.handlers.items() if subscription.order is None else ():
        if (event_type := types.get(name)) is None:
            continue
        versions = {event_type.dataschema} if event_type.upcasts else {event_type.dataschema, None}
        what = event_type, handler, event_type.decode, event_type.key_field
        taken += [Taken(name, version, *what) for version in versions]
    return taken
