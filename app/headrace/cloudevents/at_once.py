"""Many events in structured mode, decoded and encoded together.

To parse one record takes half as long as the calls and checks around it. So what is checked of a record is checked of
all of them at once; a record for which that is not enough has all of them decoded one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.cloudevents.attributes import check_utf8
from headrace.cloudevents.record import are_own, own_headers
from headrace.cloudevents.structured import Structured, read_structured, write_structured
from headrace.errors import DecodeError
from headrace.log.ports import NewRecord, Record


def decode_at_once(records: Sequence[Record]) -> list[Structured] | None:
    """Return for each record its event with its data, or None if only `decode_record` can tell what is in one of them.

    An event is what `decode_record` would return of the record. There is none for a record in another mode, with
    unknown extensions or with a fault. Raises: MemoryError.
    """
    headers = [record.headers for record in records]
    if not are_own(headers):
        return None
    values = [record.value or b"" for record in records]
    try:
        check_utf8(b"".join(values))  # each begins and ends with a brace, or it is refused below
        events = list(map(read_structured, values))
    except (DecodeError, msgspec.DecodeError, RecursionError):
        return None
    if None in [event.traceparent for event in events]:  # then its trace is in headers, if it has one
        for event, own in zip(events, headers, strict=True):
            if event.traceparent is None and len(own) > 1:
                return None
    return events


def encode_at_once(
    events: Sequence[Structured],
    topics: Sequence[str],
    keys: Sequence[str],
    traces: Sequence[tuple[str | None, str | None]],
) -> list[NewRecord]:
    """Return each event as the record that `encode_record` makes of it; those of one trace share their headers.

    The events were let in, the keys are Unicode, and a trace is the traceparent and the tracestate that an event names.
    """
    headers = {trace: own_headers(*trace) for trace in set(traces)}
    values = map(write_structured, events)
    return list(map(NewRecord, topics, map(str.encode, keys), values, [headers[trace] for trace in traces]))
