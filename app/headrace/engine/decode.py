"""Turns records into items: decode, drop duplicates, find type, handler and key. No I/O; runs off the event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from headrace.cloudevents import decode_record, event_key
from headrace.envelope import Envelope, identity
from headrace.errors import DecodeError, EventError, UnknownTypeError
from headrace.event import EventType, event_type_of
from headrace.handlers.subscription import Subscription
from headrace.item import Item, Outcome
from headrace.log.ports import Record
from headrace.registry import Decoder

_OUTCOMES = {"decode": Outcome.DECODE, "schema": Outcome.SCHEMA, "unknown_type": Outcome.UNKNOWN_TYPE}
_CRC = 0xFFFF_FFFF


class BatchDecoder:
    """Decodes the records of one subscription."""

    def __init__(
        self, subscription: Subscription, types: Mapping[str, EventType], decoders: Mapping[str, Decoder]
    ) -> None:
        self._handlers = subscription.handlers
        self._types = types
        self._decoders = decoders
        self._extensions = subscription.wants_envelope

    def decode(self, records: Sequence[Record], seen: Mapping[bytes, int]) -> list[Item]:
        """Return an item per record, in order; `seen` are the marks of the dedupe window.

        An identity counts as seen within the batch if its event is going to be applied or parked: an event that
        becomes a dead letter may be sent again, corrected, under its id. Whatever goes wrong with one record makes
        that record a dead letter. Raises: MemoryError (decode fewer records at a time).
        """
        items = [Item(record) for record in records]
        fresh: dict[bytes, int] = {}
        decoders, handlers, types, extensions = self._decoders, self._handlers, self._types, self._extensions
        for item in items:
            record = item.record
            try:
                foreign = decoders.get(record.topic) if decoders else None
                if foreign is not None:
                    event: Any = _decode_foreign(record, foreign)
                    if event is None:
                        item.outcome = Outcome.UNHANDLED
                        continue
                    envelope, data = _foreign_envelope(record, event), record.value or b""
                else:
                    event = None
                    envelope, data = decode_record(record, extensions=extensions)
                item.envelope = envelope
                item.identity = known = identity(envelope.source, envelope.type, envelope.id)
                item.mark = mark = record.offset << 32 | crc32(data)
                first = seen.get(known)
                if first is None:
                    first = fresh.get(known)
                if first is not None:
                    is_same = first < 0 or first & _CRC == mark & _CRC
                    item.outcome = Outcome.DUPLICATE_ID if is_same else Outcome.CONFLICTING_ID
                    item.mark = first
                    continue
                item.event_type = event_type = types.get(envelope.type)
                if event_type is None:
                    raise UnknownTypeError(f"the type {envelope.type!r} is not declared by this service.")
                item.handler = handler = handlers.get(envelope.type)
                if handler is None:
                    item.outcome = Outcome.UNHANDLED
                    continue
                if envelope.dataschema is not None:
                    event_type.check_version(envelope.dataschema)
                if event is None:
                    event = (
                        event_type.decode(data) if not event_type.upcasts else _decode_old(event_type, envelope, data)
                    )
                item.event = event
                item.key = event_key(envelope, event_type, event)
                fresh[known] = mark
            except EventError as error:
                item.failed(_OUTCOMES.get(error.reason, Outcome.DECODE), error)
            except MemoryError:
                raise
            except Exception as error:
                reason = DecodeError(f"the record could not be read: {type(error).__name__}: {error}")
                item.failed(Outcome.DECODE, reason)
        return items


def _decode_old(event_type: EventType, envelope: Envelope, data: bytes) -> object:
    return event_type.decode_version(data, event_type.version_of(envelope.dataschema))


def _decode_foreign(record: Record, decoder: Decoder) -> object:
    try:
        return decoder(record)
    except MemoryError:
        raise
    except Exception as error:
        raise DecodeError(f"the decoder of topic {record.topic!r} raised {type(error).__name__}: {error}") from error


def _foreign_envelope(record: Record, event: object) -> Envelope:
    event_type = event_type_of(event)
    if event_type is None:
        raise DecodeError(
            f"the decoder of topic {record.topic!r} returned a {type(event).__name__}, which is no event type."
        )
    return Envelope(
        # With the time: offsets begin at 0 again in a topic that was created again, and its events are no duplicates.
        id=f"{record.partition}/{record.offset}/{record.timestamp}",
        source=f"/topics/{record.topic}",
        type=event_type.type,
        datacontenttype="application/json",
    )
