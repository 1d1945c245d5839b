"""The key: `partitionkey`, else the declared field, else `subject`, else `id`."""

from __future__ import annotations

from enum import Enum

from headrace.cloudevents import event_key
from headrace.envelope import Envelope
from headrace.event import Event, EventType, event_type_of


class Region(Enum):
    NORTH = "north"


class Moved(Event, type="thing.moved", topic="things", key="where"):
    where: Region | int | str | None = None


class Seen(Event, type="thing.seen", topic="things"):
    pass


def declared(model: type[Event]) -> EventType:
    """The model's declaration."""
    event_type = event_type_of(model)
    assert event_type is not None
    return event_type


MOVED, SEEN = declared(Moved), declared(Seen)
PLAIN = Envelope(id="1", source="/s", type="t")
WITH_SUBJECT = Envelope(id="1", source="/s", type="t", subject="sub")


def test_the_partition_key_comes_first() -> None:
    assert event_key(Envelope(id="1", source="/s", type="t", partitionkey="p"), MOVED, Moved(where="x")) == "p"


def test_the_declared_field_comes_next_as_text() -> None:
    assert event_key(WITH_SUBJECT, MOVED, Moved(where="x")) == "x"
    assert event_key(WITH_SUBJECT, MOVED, Moved(where=7)) == "7"
    assert event_key(WITH_SUBJECT, MOVED, Moved(where=Region.NORTH)) == "north"


def test_without_a_key_field_the_subject_counts_then_the_id() -> None:
    """The same holds when the field has no value."""
    assert event_key(WITH_SUBJECT, MOVED, Moved()) == "sub"
    assert event_key(WITH_SUBJECT, SEEN, Seen()) == "sub"
    assert event_key(PLAIN, SEEN, Seen()) == "1"
