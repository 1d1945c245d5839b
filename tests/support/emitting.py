"""An emitter as a handler is given it, an event that it may emit, and the events that are the cause."""

from __future__ import annotations

from headrace.emits.emitter import Emitter
from headrace.envelope import Envelope
from headrace.event import Event
from headrace.item import Item
from headrace.log.ports import StoredRecord


class Echoed(Event, type="echoed", topic="echoes", key="page"):
    """The event that the emitter may emit."""

    page: str
    text: str = ""


TYPES = {"echoed": Echoed.__headrace_event_type__}


def begin(emit: Emitter, item: Item) -> None:
    """What follows is emitted by the handler of this item."""
    emit.cause, emit.position = item, 0


def emitter(subscription: str = "notes") -> Emitter:
    """Return one that may emit echoes of up to 10,000 bytes."""
    return Emitter("notebook", subscription, TYPES, 10_000)


def cause(id: str = "1", source: str = "/tests", type: str = "noted") -> Item:
    """Return the item of an event."""
    item = Item(StoredRecord("pages", 0, 0, 0, b"a", b"{}", ()))
    item.known_envelope = Envelope(
        id=id, source=source, type=type, correlationid="the-beginning", traceparent="00-1-2-01"
    )
    item.identity = item.envelope.identity
    return item
