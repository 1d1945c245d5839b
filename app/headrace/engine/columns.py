"""Items of many records, made a column at a time: all envelopes, all identities, all checksums, and so on.

A loop over the records asks each what sort it is, and looks everything up for each: as much work again as the columns
are. A column asks all records of a chunk at once whether they are plain: written by the platform, new, of a type that a
handler takes, and right. Whatever else a record may be is decided by `BatchDecoder` alone: if one record is not plain,
the items of its chunk are made one by one, so that nothing is decided here (tests/unit/engine/test_columns.py).
"""

from __future__ import annotations

from collections.abc import Callable, KeysView, Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, NamedTuple
from zlib import crc32

from headrace.cloudevents import event_key
from headrace.cloudevents.structured import Structured
from headrace.envelope import identity
from headrace.event import EventType
from headrace.handlers.subscription import Handler, Subscription
from headrace.item import Item, Outcome
from headrace.log.ports import Record

CHUNK_RECORDS = 128
"""Enough for a column to be worth its beginning, few enough to be made twice for one that is not plain."""

_data = attrgetter("data")


class Taken(NamedTuple):
    """What is done with the events of one type and version."""

    event_type: EventType
    handler: Handler
    decode: Callable[[bytes], Any]


class Columns:
    """Makes the items of plain records of one subscription."""

    def __init__(
        self, subscription: Subscription, types: Mapping[str, EventType], foreign_topics: KeysView[str]
    ) -> None:
        self._foreign_topics = foreign_topics
        self._taken: dict[tuple[str, str | None], Taken] = {}
        """By type and `dataschema`; other versions of the type are not plain, nor is what has an order."""
        for name, handler in subscription.handlers.items() if subscription.order is None else ():
            if (event_type := types.get(name)) is None:
                continue
            taken = Taken(event_type, handler, event_type.decode)
            self._taken[name, event_type.dataschema] = taken
            if not event_type.upcasts:
                self._taken[name, None] = taken

    def items(
        self,
        records: Sequence[Record],
        events: Sequence[Structured],
        seen: Mapping[bytes, int],
        fresh: dict[bytes, int],
    ) -> list[Item] | None:
        """Return an item per record, all of them READY, or None if a record is not plain.

        `events` are what `decode_at_once` made of the records, `fresh` the marks of the batch's events before these;
        theirs are added. Raises: MemoryError.
        """
        if self._foreign_topics and not self._foreign_topics.isdisjoint([record.topic for record in records]):
            return None
        try:
            taken = [self._taken[event.type, event.dataschema] for event in events]
            identities = [identity(event.source, event.type, event.id) for event in events]
            data = list(map(bytes, map(_data, events)))
            marks = [record.offset << 32 | crc for record, crc in zip(records, map(crc32, data), strict=True)]
            new = dict(zip(identities, marks, strict=True))
            if len(new) < len(records) or not (seen.keys().isdisjoint(new) and fresh.keys().isdisjoint(new)):
                return None
            models = [each.decode(raw) for each, raw in zip(taken, data, strict=True)]
            keys = list(map(event_key, events, [each.event_type for each in taken], models))
        except MemoryError:
            raise
        except Exception:
            return None  # it is found out again, and said, for the record that is at fault
        fresh |= new
        types, handlers, _ = zip(*taken, strict=True)
        return list(map(Item, records, repeat(Outcome.READY), events, types, models, handlers, identities, marks, keys))
