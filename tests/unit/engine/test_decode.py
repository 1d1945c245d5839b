"""What a record is read as: an event to be run, a duplicate, nothing of ours, or no event at all."""

from __future__ import annotations

import json

import pytest

from headrace.engine.decode import BatchDecoder
from headrace.envelope import identity
from headrace.event import Event
from headrace.handlers.inject import State
from headrace.item import Outcome
from headrace.log.ports import Record, StoredRecord
from headrace.registry import Registry
from tests.support.platform import Notes


class Noted(Event, type="noted", topic="pages", key="page"):
    page: str
    number: int


class Ignored(Event, type="ignored", topic="pages"):
    page: str


@pytest.fixture
def registry() -> Registry:
    registry = Registry("notebook")
    registry.add_type(Ignored)

    @registry.add_subscription("notes", "earliest").on(Noted)
    def note(event: Noted, kept: State[Notes]) -> None: ...

    registry.complete()
    return registry


@pytest.fixture
def decoder(registry: Registry) -> BatchDecoder:
    return BatchDecoder(registry.subscriptions["notes"], registry.types, registry.decoders)


def record(data: object, *, id: str = "1", type: str = "noted", topic: str = "pages", offset: int = 0) -> Record:
    """Return a record in binary mode."""
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_source", b"/tests"),
        ("ce_type", type.encode()),
    )
    return StoredRecord(topic, 3, offset, 0, b"a", json.dumps(data).encode(), headers)


def test_event_is_read_with_its_handler_its_key_and_its_identity(decoder: BatchDecoder) -> None:
    (item,) = decoder.decode([record({"page": "a", "number": 1})], {})
    assert item.outcome is Outcome.READY
    assert item.event == Noted(page="a", number=1)
    assert (item.key, item.identity) == ("a", identity("/tests", "noted", "1"))
    assert item.handler is not None and item.handler.name == "note"


def test_id_is_a_duplicate_within_the_batch_and_of_the_window(decoder: BatchDecoder) -> None:
    good = {"page": "a", "number": 1}
    records = [record(good, id="1"), record(good, id="1"), record(good, id="2")]
    items = decoder.decode(records, {identity("/tests", "noted", "2"): -1})
    assert [item.outcome for item in items] == [Outcome.READY, Outcome.DUPLICATE_ID, Outcome.DUPLICATE_ID]


def test_same_id_with_other_data_is_a_conflict(decoder: BatchDecoder) -> None:
    """Within the batch and of the window; the first event's offset is told. The same data are a duplicate."""
    records = [record({"page": "a", "number": number}, offset=offset) for offset, number in ((7, 1), (8, 1), (9, 2))]
    items = decoder.decode(records, {})
    expected = [Outcome.READY, Outcome.DUPLICATE_ID, Outcome.CONFLICTING_ID]
    assert [item.outcome for item in items] == expected
    assert [item.mark >> 32 for item in items] == [7, 7, 7]
    again = decoder.decode(records[1:], {items[0].identity: items[0].mark})
    assert [item.outcome for item in again] == expected[1:]
    assert [item.mark for item in again] == [items[0].mark] * 2
    unknown = decoder.decode(records[2:], {items[0].identity: -1})
    assert unknown[0].outcome is Outcome.DUPLICATE_ID, "it was seen before there were marks"


def test_same_id_under_another_type_is_another_event(decoder: BatchDecoder) -> None:
    items = decoder.decode([record({"page": "a"}, type="ignored"), record({"page": "a", "number": 1})], {})
    assert [item.outcome for item in items] == [Outcome.UNHANDLED, Outcome.READY]
    known = {items[0].identity: -1}
    assert decoder.decode([record({"page": "a", "number": 1})], known)[0].outcome is Outcome.READY


def test_id_of_a_record_that_does_not_fit_stays_free(decoder: BatchDecoder) -> None:
    items = decoder.decode([record({"page": "a"}), record({"page": "a", "number": 1})], {})
    assert [item.outcome for item in items] == [Outcome.SCHEMA, Outcome.READY]


def test_types_without_a_handler_are_skipped(decoder: BatchDecoder) -> None:
    items = decoder.decode([record({"page": "a"}, type="ignored"), record({}, id="2", type="strange")], {})
    assert [item.outcome for item in items] == [Outcome.UNHANDLED, Outcome.UNKNOWN_TYPE]
    assert str(items[1].error) == "the type 'strange' is not declared by this service."
    assert items[1].envelope.id == "2", "what could be read is kept for the dead letter"


def test_each_record_is_read_by_the_decoder_of_its_topic(registry: Registry) -> None:
    registry.decoders["lines"] = lambda line: Noted(page="a", number=int(line.value or b""))
    decoder = BatchDecoder(registry.subscriptions["notes"], registry.types, registry.decoders)
    foreign, odd = (StoredRecord("lines", 3, offset, 0, None, line, ()) for offset, line in ((17, b"1"), (18, b"x")))
    items = decoder.decode([foreign, record({"page": "a", "number": 1}), odd], {})
    assert [item.outcome for item in items] == [Outcome.READY, Outcome.READY, Outcome.DECODE]


def test_decoder_that_returns_no_event_makes_a_dead_letter(registry: Registry) -> None:
    registry.decoders["lines"] = lambda line: {"page": "a"}
    decoder = BatchDecoder(registry.subscriptions["notes"], registry.types, registry.decoders)
    (item,) = decoder.decode([StoredRecord("lines", 3, 17, 0, None, b"1", ())], {})
    assert item.outcome is Outcome.DECODE
    assert "returned a dict, which is no event type" in str(item.error)


def test_errors_are_kept_without_frames_of_the_batch(decoder: BatchDecoder) -> None:
    (item,) = decoder.decode([record({"page": "a"})], {})
    error: BaseException | None = item.error
    assert error is not None
    while error is not None:
        assert error.__traceback__ is None
        error = error.__cause__
