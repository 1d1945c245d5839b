"""Events of a batch that are checked a column at a time are those that are checked one by one, whatever they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any
from unittest.mock import Mock, patch

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from starlette.datastructures import Headers

from headrace.cloudevents import ParsedEvent
from headrace.errors import DecodeError
from headrace.event import Event, event, event_type_of, upcast
from headrace.http.problems import Problem
from headrace.ingest import checking
from headrace.ingest.checking import check_all
from headrace.ingest.columns import check_at_once
from headrace.ingest.parsing import parse_request
from headrace.settings import IngestSettings
from tests.support.spans import SAMPLED, UNSAMPLED, Spans, facts

BATCHED = Headers({"content-type": "application/cloudevents-batch+json"})
NOW = datetime(2031, 5, 6, tzinfo=UTC)


class Drawn(Event, type="drawn", topic="pages", key="page"):
    page: str
    number: int = 0


class Hidden(Event, type="hidden", topic="pages", internal=True):
    page: str


@event(type="torn", topic="scraps")
class Torn(msgspec.Struct):
    page: str


@event(type="bound", topic="pages", key="page", version=2)
class Bound(msgspec.Struct):
    page: str


@upcast(Bound, version=1)
def bind(data: dict[str, Any]) -> dict[str, Any]:
    return {"page": "old"}


DECLARED = [event_type_of(model) for model in (Drawn, Hidden, Torn, Bound)]
TYPES = {each.type: each for each in DECLARED if each is not None}
PLAIN = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "drawn", "data": {"page": "a"}}

data = st.sampled_from([{"page": "a" * 600}, {"page": 1}, {"page": None}, {}, None]).map(lambda data: {"data": data})
texts = st.text(min_size=1, max_size=5)
attributes = st.fixed_dictionaries(
    {"type": st.sampled_from(["drawn", "torn", "bound"])},
    optional={
        "id": texts,
        "subject": texts,
        "partitionkey": texts,
        "time": st.sampled_from(["2031-05-06T07:08:09Z", "2031-05-06T07:08:09.5+02:00"]),
        "datacontenttype": st.sampled_from(["text/json", ""]),
        "dataschema": st.sampled_from(["bound/v1", "bound/v2", "https://example.com/page.json", ""]),
        "traceparent": st.sampled_from([SAMPLED, "00-x"]),
        "tracestate": st.just("a=1"),
        "data": st.sampled_from([{"page": "b"}, {"page": "ä"}, {"page": ""}]),
    },
)
odd = st.sampled_from(
    [
        {"own": "x"},
        {"type": "hidden"},
        {"type": "unknown"},
        {"id": ""},
        {"type": "bound", "dataschema": "bound/v3"},
        {"datacontenttype": "application/cloudevents+json"},
    ]
)


@given(st.lists(attributes, min_size=1, max_size=20), st.sampled_from([None, SAMPLED, UNSAMPLED]))
def test_right_events_are_checked_at_once(changes: list[dict[str, Any]], traceparent: str | None) -> None:
    """They are what they are one by one, and so are their spans."""
    assert checked(changes, traceparent, at_once=True) == checked(changes, traceparent, at_once=False)
    with Spans().tracing.ingest("/events", {}) as span:
        assert check_at_once(parsed(changes), TYPES, NOW, span) is not None


@given(st.lists(attributes | odd | data, min_size=1, max_size=20))
def test_any_events_are_what_they_are_one_by_one(changes: list[dict[str, Any]]) -> None:
    """Those that are refused have the same faults, and those beside them the same spans."""
    assert checked(changes, None, at_once=True) == checked(changes, None, at_once=False)


def test_faults_of_later_parts_have_the_indexes_of_the_batch() -> None:
    """The events of a large batch are checked in parts."""
    refused, _ = checked([{}] * 199 + [{"type": "unknown"}] * 2 + [{}] * 300 + [{"id": ""}], None, at_once=True)
    assert [fault.get("index") for fault in refused] == [199, 200, 501, None]


def parsed(changes: Sequence[Mapping[str, Any]]) -> list[ParsedEvent | DecodeError]:
    """The events of a batch: the plain one, each time with changes."""
    body = json.dumps([{**PLAIN, **change} for change in changes]).encode()
    return parse_request("batched", BATCHED, body, plain=None, limits=IngestSettings())


def checked(changes: Sequence[Mapping[str, Any]], traceparent: str | None, *, at_once: bool) -> tuple[list[Any], Any]:
    """Return the events, or the faults, and the spans that were made."""
    spans, numbers = Spans(), count(1)
    way = check_at_once if at_once else Mock(return_value=None)
    with (
        patch.object(checking, "check_at_once", way),
        patch.object(checking, "datetime", Mock(now=Mock(return_value=NOW))),
        patch.object(RandomIdGenerator, "generate_span_id", lambda _: next(numbers)),
        patch.object(RandomIdGenerator, "generate_trace_id", lambda _: next(numbers)),
        spans.tracing.ingest("/events", {"traceparent": traceparent} if traceparent else {}) as span,
    ):
        try:
            found: list[Any] = asyncio.run(check_all(parsed(changes), TYPES, span, "batched"))
        except Problem as problem:
            found = [*problem.members["errors"], {"detail": problem.detail}]  # type: ignore[misc]
    return found, [(each.name, each.context, facts(each)) for each in spans.all]
