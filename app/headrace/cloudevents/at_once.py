"""Many records in structured mode, decoded by one call: msgspec's for lines of JSON.

To parse one record takes half as long as the calls and checks around it. So the values of a chunk of records are joined
to lines, and what is checked of a value is checked of the chunk. A chunk is small, so that a record with a fault takes
few others with it, and an envelope that a handler keeps holds the bytes of few others.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.cloudevents.attributes import check_utf8
from headrace.cloudevents.record import is_own
from headrace.cloudevents.structured import Structured
from headrace.errors import DecodeError
from headrace.log.ports import Record

CHUNK_RECORDS, CHUNK_BYTES = 64, 65_536
"""With more bytes nothing is won: to parse them costs more than all the calls."""

_lines = msgspec.json.Decoder(Structured).decode_lines


def decode_at_once(records: Sequence[Record]) -> list[Structured | None]:
    """Return for each record its event with its data, or None if only `decode_record` can tell what is in it.

    An event is what `decode_record` would return of the record. It is None for a record in another mode, with unknown
    extensions or with a fault, and for those decoded together with it. Raises: MemoryError.
    """
    own = [record for record in records if is_own(record.headers)]
    events: list[Structured | None] = []
    for begin in range(0, len(own), CHUNK_RECORDS):
        events += _decode_chunk(own[begin : begin + CHUNK_RECORDS])
    if len(own) == len(records):
        return events
    event_of = dict(zip(map(id, own), events, strict=True))
    return [event_of.get(id(record)) for record in records]


def _decode_chunk(records: Sequence[Record]) -> Sequence[Structured | None]:
    events = _decoded([record.value or b"" for record in records])
    if not events:
        return [None] * len(records)
    if None in [event.traceparent for event in events]:  # then its trace is in headers, if it has one
        return [
            event if event.traceparent is not None or len(record.headers) == 1 else None
            for record, event in zip(records, events, strict=True)
        ]
    return events


def _decoded(values: Sequence[bytes]) -> Sequence[Structured]:
    """Return the event of each value; none at all if one of them is not read in this way."""
    text = b"".join(values)
    if len(text) > CHUNK_BYTES or b"\n" in text:
        return ()
    # No value goes on in the next line if each begins and ends as an object does: no string holds the end of a line.
    if {value[:1] + value[-1:] for value in values} != {b"{}"}:
        return ()
    try:
        check_utf8(text)
        events = _lines(b"\n".join(values))
    except (DecodeError, msgspec.DecodeError, RecursionError):
        return ()
    return events if len(events) == len(values) else ()  # or one of them holds two objects
