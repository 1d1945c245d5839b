"""Items of many records, made a column at a time: all envelopes, all identities, all checksums, and so on.

A loop over the records asks each what sort it is, and looks everything up for each: as much work again as the columns
are. A column asks all records of a chunk at once whether they are plain (`plain.py`). If one is not, nothing is decided
here, and all of the chunk are left to `BatchDecoder`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from zlib import crc32

from headrace.cloudevents import decode_at_once, event_key
from headrace.engine.taken import Taken
from headrace.envelope import identity
from headrace.item import Item, Outcome
from headrace.log.ports import Record
from headrace.telemetry.trace_context import FLAGS, SAMPLED

CHUNK_RECORDS = 128
"""Enough for a column to be worth its beginning, few enough to be made twice for one that is not plain."""

_data = attrgetter("data")


class Columns:
    """Makes the items of plain records of one subscription. The twin of `Plain` in _speedups.c."""

    skipped = CHUNK_RECORDS

    def __init__(self, taken: Collection[Taken], foreign_topics: frozenset[str]) -> None:
        self._foreign_topics = foreign_topics
        self._taken = {(each.type, each.dataschema): each for each in taken}

    def items(
        self, all_records: Sequence[Record], begin: int, seen: Mapping[bytes, int], fresh: dict[bytes, int]
    ) -> list[Item]:
        """Return an item for each of the next records, or none if one of CHUNK_RECORDS is not plain; see `plain.py`."""
        records = all_records[begin : begin + CHUNK_RECORDS]
        if self._foreign_topics and not self._foreign_topics.isdisjoint([record.topic for record in records]):
            return []
        events = decode_at_once(records)
        if not events:
            return []
        try:
            taken = [self._taken[event.type, event.dataschema] for event in events]
            identities = [identity(event.source, event.type, event.id) for event in events]
            data = list(map(bytes, map(_data, events)))
            marks = [record.offset << 32 | crc for record, crc in zip(records, map(crc32, data), strict=True)]
            new = dict(zip(identities, marks, strict=True))
            if len(new) < len(records) or not (seen.keys().isdisjoint(new) and fresh.keys().isdisjoint(new)):
                return []
            models = [each.decode(raw) for each, raw in zip(taken, data, strict=True)]
            types = [each.event_type for each in taken]
            keys = list(map(event_key, events, types, models))
        except MemoryError:
            raise
        except Exception:
            return []  # it is found out again, and said, for the record that is at fault
        fresh |= new
        traces = [event.traceparent for event in events]
        are_sampled = [text is not None and text[FLAGS] in SAMPLED for text in traces]  # `is_sampled`, without a call
        handlers = [each.handler for each in taken]
        ready = repeat(Outcome.READY)
        return list(map(Item, records, ready, events, types, models, handlers, identities, marks, keys, are_sampled))
