"""What of a batch is told to the tracer: the facts of few of its events and calls, and how many are left out."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from headrace import Event
from headrace.engine.claim import Claim
from headrace.engine.trace import Called, batch_facts
from headrace.envelope import Envelope
from headrace.handlers.subscription import Handler, Subscription
from headrace.item import Item, Outcome
from headrace.log.ports import StoredRecord, TopicPartition
from headrace.telemetry.trace_context import is_sampled
from tests.support.spans import NOW, SAMPLED, UNSAMPLED, Spans, facts


class Noted(Event, type="noted", topic="pages", key="page"):
    page: str


@pytest.fixture
def claim() -> Claim:
    row: dict[str, Any] = dict.fromkeys(("sequence", "emitted_through", "crashes"), 0)
    row |= {"log_id": "here", "topic_id": "one", "epoch": 1, "next_offset": 0, "last_offset": None}
    place = TopicPartition("pages", 0)
    return Claim("shop.notes", place, uuid4(), row, is_orphaned=False, seconds_released=None, suspect_records=0)


@pytest.fixture
def handler() -> Handler:
    subscription = Subscription("notes", service="shop")

    def note(event: Noted) -> None:
        """Do nothing."""

    subscription.on(Noted)(note)
    return subscription.handlers["noted"]


def items(count: int, *traceparents: str | None) -> list[Item]:
    """Return so many items, whose traceparents are the given ones over and over."""
    made = []
    for offset in range(count):
        traceparent = traceparents[offset % len(traceparents)]
        record = StoredRecord("pages", 0, offset, 0, b"a", b"{}", ())
        envelope = Envelope(id=str(offset), source="/s", type="t", traceparent=traceparent)
        made.append(Item(record, Outcome.APPLIED, envelope, is_sampled=is_sampled(traceparent)))
    return made


def test_every_nth_sampled_event_becomes_a_link(claim: Claim) -> None:
    told = batch_facts(claim, items(1_200, None, "", UNSAMPLED, SAMPLED), NOW, NOW + 1)
    assert [link.offset for link in told.links] == list(range(3, 1_200, 12))
    assert {link.outcome for link in told.links} == {"applied"}
    assert told.links_dropped == 200


def test_failed_calls_and_the_longest_become_facts(claim: Claim, handler: Handler) -> None:
    taken = items(202, SAMPLED)
    calls = [Called(item, handler, number / 1e9, NOW + 1_000) for number, item in enumerate(taken[:200])]
    calls += [Called(item, handler, 1e-9, NOW, "ValueError") for item in taken[200:]]
    told = batch_facts(claim, taken, NOW, NOW + 1, calls)
    assert [call.event.event_id for call in told.calls[:2]] == ["200", "201"]
    assert sorted(call.event.offset or 0 for call in told.calls[2:]) == list(range(184, 200))
    assert {(call.handler, call.ended_ns) for call in told.calls[2:]} == {("note", NOW + 1_000)}
    assert {call.started_ns - NOW for call in told.calls[2:]} == set(range(801, 817))
    assert told.calls_dropped == 184


def test_the_batchs_span_says_how_many_are_left_out(claim: Claim, handler: Handler) -> None:
    spans, taken = Spans(), items(300, SAMPLED)
    calls = [Called(item, handler, 0.0, NOW) for item in taken]
    spans.tracing.batch(batch_facts(claim, taken, NOW, NOW + 1, calls))
    span = spans.one("process pages")
    assert (facts(span)["headrace.links.dropped"], facts(span)["headrace.calls.dropped"]) == (200, 284)
    assert (len(span.links), len(spans.named("handle note"))) == (100, 16)
