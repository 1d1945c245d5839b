"""Plain events of a batch, checked a column at a time: all types, all data, all keys, and so on.

A loop over the events looks everything up for each of them, and calls a dozen functions for each: as much work again as
to read the data and to write the record. What is plain is decided for all events together: they came without unknown
extensions, their types are declared and public, and none of them has a fault. If one is not plain, `check_event` checks
them one by one, so that no refusal is decided here (tests/unit/ingest/test_columns.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.cloudevents import ParsedEvent, encode_at_once, event_key
from headrace.cloudevents.structured import Structured
from headrace.errors import DecodeError, EventError, UnknownTypeError
from headrace.event import EventType
from headrace.publishing.checking import CheckedEvent, completed

if TYPE_CHECKING:
    from headrace.telemetry.spans import IngestSpan


class Kind(NamedTuple):
    """What events of one type and one `dataschema` have in common."""

    event_type: EventType
    decode: Callable[[bytes], Any]


class Kinds(dict[tuple[str, str | None], Kind]):
    """The kinds of a request's events, by type and `dataschema`, each looked up once."""

    def __init__(self, types: Mapping[str, EventType]) -> None:
        super().__init__()
        self._types = types

    def __missing__(self, name: tuple[str, str | None]) -> Kind:
        """Raises: EventError (the type is not declared, or internal; a newer version)."""
        event_type = self._types.get(name[0])
        if event_type is None or event_type.is_internal:
            raise UnknownTypeError(name[0])
        kind = self[name] = Kind(event_type, event_type.decoder_of(name[1]))
        return kind


def check_at_once(
    parsed: Sequence[ParsedEvent | DecodeError], types: Mapping[str, EventType], now: datetime, span: IngestSpan
) -> list[CheckedEvent] | None:
    """Return what `check_event` would of each event, or None if one of them is not plain; no trace has begun then."""
    plain = [each for each in parsed if isinstance(each, ParsedEvent)]
    events = [each.envelope for each in plain if isinstance(each.envelope, Structured)]
    if len(events) < len(parsed):
        return None
    kinds = Kinds(types)
    try:
        taken = [kinds[event.type, event.dataschema] for event in events]
        models = [kind.decode(each.data) for kind, each in zip(taken, plain, strict=True)]
        event_types = [kind.event_type for kind in taken]
        keys = list(map(event_key, events, event_types, models))
    except EventError:
        return None  # it is found out again, and said, for the event that is at fault
    topics = [event_type.topic for event_type in event_types]
    traces = span.contexts(topics, events)
    ready = list(map(completed, events, event_types, repeat(now), traces))
    records = encode_at_once(ready, topics, keys, traces)
    return list(map(CheckedEvent, ready, event_types, records))
