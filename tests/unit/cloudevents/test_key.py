"""The key: `partitionkey`, else the declared field, else `subject`, else `id`."""

from __future__ import annotations

from enum import Enum
from typing import Any, cast

import pytest

from headrace.cloudevents import check_key, event_key
from headrace.envelope import Envelope
from headrace.errors import SchemaError
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


@pytest.mark.parametrize("key", ["caf\ud83d", "\udc00", "x" * 513])
def test_key_that_no_table_can_hold_is_the_events_fault(key: str) -> None:
    """Half of an emoji comes from a decoder that cuts text, or from Python's own JSON."""
    with pytest.raises(SchemaError, match="give the event"):
        event_key(PLAIN, MOVED, Moved.model_construct(where=key))
    with pytest.raises(SchemaError, match="give the event"):
        check_key(key)


def test_key_in_any_script_is_taken() -> None:
    assert check_key("\U0001f600" * 512) == "\U0001f600" * 512


def test_field_without_a_text_is_the_events_fault() -> None:
    class Silent:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with pytest.raises(SchemaError, match=r"thing\.moved: the key 'where' cannot be written as text \(RuntimeError\)"):
        event_key(PLAIN, MOVED, Moved.model_construct(None, where=cast("Any", Silent())))
