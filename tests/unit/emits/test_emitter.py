"""Emitted events have ids that follow from their cause, so that a second publishing is recognised."""

from __future__ import annotations

import pytest

from headrace.cloudevents import decode_record
from headrace.emits.emitter import size_of
from headrace.errors import ConfigurationError, RecordTooLargeError
from headrace.item import Item
from tests.support.emitting import Echoed, begin, cause, emitter


def ids(subscription: str, *causes: Item, each: int = 1) -> list[str]:
    """Return the ids of what the causes emit."""
    emit = emitter(subscription)
    for item in causes:
        begin(emit, item)
        for _ in range(each):
            emit(Echoed(page="a"))
    return [decode_record(record)[0].id for _, record in emit.emitted]


def test_same_cause_and_position_give_the_same_id() -> None:
    """In every process."""
    assert ids("notes", cause(), each=2) == ids("notes", cause(), each=2)
    both = ids("notes", cause(), cause("2"), each=2)
    assert both == ids("notes", cause(), each=2) + ids("notes", cause("2"), each=2), "whatever else is in the batch"


def test_other_cause_position_or_subscription_gives_another_id() -> None:
    causes = [cause(), cause("2"), cause(source="/other"), cause(type="other")]
    found = ids("notes", *causes, each=3) + ids("other", cause(), each=3)
    assert len(set(found)) == 15


def test_emitted_event_carries_key_cause_and_trace() -> None:
    emit = emitter()
    begin(emit, cause())
    emit(Echoed(page="a"))
    emit(Echoed(page="a"), key="b")
    envelopes = [decode_record(record)[0] for _, record in emit.emitted]
    assert [envelope.partitionkey for envelope in envelopes] == ["a", "b"]
    assert [record.key for _, record in emit.emitted] == [b"a", b"b"]
    assert {(e.causationid, e.correlationid, e.traceparent) for e in envelopes} == {("1", "the-beginning", "00-1-2-01")}


def test_failed_handler_takes_back_only_its_own() -> None:
    emit = emitter()
    first = cause()
    begin(emit, first)
    emit(Echoed(page="a"))
    begin(emit, cause("2"))
    emit(Echoed(page="b"))
    emit(Echoed(page="c"))
    emit.undo()
    assert [item for item, _ in emit.emitted] == [first]


def test_event_too_large_for_the_log_is_refused_in_the_handler() -> None:
    emit = emitter()
    begin(emit, cause())
    with pytest.raises(RecordTooLargeError, match="the emitted echoed has"):
        emit(Echoed(page="a", text="x" * 10_000))
    assert emit.emitted == []


def test_size_counts_key_value_and_headers() -> None:
    """An id travels in the record, as the cause of what is emitted: a large one makes a large record."""
    emit = emitter()
    begin(emit, cause())
    emit(Echoed(page="a"))
    begin(emit, cause("1" * 3_000))
    emit(Echoed(page="a"))
    small, large = (size_of(record) for _, record in emit.emitted)
    assert large - small == 3_000 - 1
    begin(emit, cause("1" * 10_000))
    with pytest.raises(RecordTooLargeError):
        emit(Echoed(page="a"))


def test_emit_outside_of_a_handler_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="outside of a handler"):
        emitter()(Echoed(page="a"))
