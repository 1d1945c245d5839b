"""CloudEvents 1.0, read and written: one set of checks for HTTP and for the log.

```
HTTP  structured · batched · binary ─▶ http.py ───────┐
                                                      ├─▶ attributes.py, limits.py ─▶ Envelope + data as JSON bytes
log   structured · binary (ce_* headers) ─▶ record.py ─┘
Envelope + data ─▶ record.py (a record in structured mode) · structured.py (JSON, for the SSE tail)
```

Whatever HTTP lets in is written by `encode_record` and read back by `decode_record`: both sides share the attribute
checks and limits, and if they differ, the log is the more lenient one. So an event that was answered 202
never becomes a dead letter for its envelope (tests/unit/cloudevents/test_round_trip.py).

Data are always JSON; their bytes travel as they were sent. `datacontenttype` is carried and not obeyed: the bytes
decide. A media type of CloudEvents itself is refused as `datacontenttype`, since an event is not the data of another.

Sources: CloudEvents 1.0.2, its JSON format, its HTTP and Kafka protocol bindings.
"""

from headrace.cloudevents.at_once import decode_at_once, encode_at_once
from headrace.cloudevents.attributes import check_json
from headrace.cloudevents.http import (
    MediaTypeError,
    Mode,
    ParsedEvent,
    check_json_media_type,
    parse_request,
    request_mode,
)
from headrace.cloudevents.key import check_key, declared_key, event_key
from headrace.cloudevents.limits import check_lengths
from headrace.cloudevents.record import decode_record, encode_record
from headrace.cloudevents.structured import encode_structured

__all__ = [
    "MediaTypeError",
    "Mode",
    "ParsedEvent",
    "check_json",
    "check_json_media_type",
    "check_key",
    "check_lengths",
    "declared_key",
    "decode_at_once",
    "decode_record",
    "encode_at_once",
    "encode_record",
    "encode_structured",
    "event_key",
    "parse_request",
    "request_mode",
]
