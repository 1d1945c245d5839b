"""What a record of a foreign topic is known by."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from headrace import Event
from headrace.engine.decode import BatchDecoder
from headrace.event import event_type_of
from headrace.handlers.subscription import Subscription
from headrace.item import Outcome
from headrace.log.ports import Record, StoredRecord


class Noted(Event, type="noted", topic="foreign", key="page"):
    page: str


def _read(record: Record, seen: Mapping[bytes, int] = MappingProxyType({})) -> tuple[Outcome | None, bytes]:
    subscription = Subscription("notes", "earliest", service="shop")
    subscription.on(Noted)(_note)
    event_type = event_type_of(Noted)
    assert event_type is not None
    decoder = BatchDecoder(subscription, {"noted": event_type}, {"foreign": lambda _: Noted(page="a")})
    (item,) = decoder.decode([record], seen)
    assert item.identity is not None
    return item.outcome, item.identity


def _note(event: Noted) -> None:
    """Take the event."""


def _record(timestamp: int, offset: int = 7) -> StoredRecord:
    return StoredRecord("foreign", 2, offset, timestamp, b"a", b"a", ())


def test_foreign_record_that_is_read_again_is_a_duplicate() -> None:
    _, known = _read(_record(1_700_000_000_000))
    outcome, again = _read(_record(1_700_000_000_000), {known: -1})
    assert (outcome, again) == (Outcome.DUPLICATE_ID, known)


def test_foreign_records_of_one_time_differ_by_their_position() -> None:
    """Their ids are made of time and position."""
    assert _read(_record(1_700_000_000_000, offset=7))[1] != _read(_record(1_700_000_000_000, offset=8))[1]


def test_foreign_topic_created_again_repeats_no_id() -> None:
    """A record of the new topic is no duplicate of the old topic's record at the same offset."""
    _, known = _read(_record(1_700_000_000_000))
    outcome, _ = _read(_record(1_700_000_100_000), {known: -1})
    assert outcome is not Outcome.DUPLICATE_ID
