"""The record of an event as its topic has it: a CloudEvent, or what another team's serializer would have written."""

from __future__ import annotations

from headrace.cloudevents import decode_record
from headrace.log.ports import NewRecord
from headrace.publishing.checking import CheckedEvent
from headrace.registry import Registry


def written(registry: Registry, checked: CheckedEvent) -> NewRecord:
    """Return the record of an event. Raises: ConfigurationError (a decoder's function makes such events)."""
    record, event_type = checked.record, checked.event_type
    decoder = registry.schema_decoders.get(event_type.topic)
    if decoder is None:
        return record
    return NewRecord(record.topic, record.key, decoder.as_written(event_type, decode_record(record)[1]), [])
