"""Turns records into items: decode, drop duplicates, find type, handler and key. No I/O; runs off the event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from headrace.cloudevents import decode_record, event_key
from headrace.engine.items import Item, Outcome
from headrace.envelope import Envelope
from headrace.errors import DecodeError, EventError, UnknownTypeError
from headrace.event import EventType, event_type_of
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Record
from headrace.registry import Decoder

_OUTCOMES = {"decode": Outcome.DECODE, "schema": Outcome.SCHEMA, "unknown_type": Outcome.UNKNOWN_TYPE}


class RecordReader:
    """Reads the records of one subscription."""

    def __init__(
        self, subscription: Subscription, types: Mapping[str, EventType], decoders: Mapping[str, Decoder]
    ) -> None:
        self._handlers = subscription.handlers
        self._types = types
        self._decoders = decoders
        self._extensions = subscription.wants_envelope

    def read(self, records: Sequence[Record], seen: Set[bytes]) -> list[Item]:
        """Return an item per record, in order; `seen` are the ids of the dedupe window.

        An id counts as seen within the batch once its event is going to be applied or parked: what becomes a dead
        letter may be sent again, mended, under its id.
        """
        items: list[Item] = []
        fresh: set[bytes] = set()
        decoder = self._decoders.get(records[0].topic) if records else None
        for record in records:
            item = Item(record)
            items.append(item)
            try:
                self._read(item, seen, fresh, decoder)
            except EventError as error:
                item.failed(_OUTCOMES.get(error.reason, Outcome.DECODE), error)
        return items

    def _read(self, item: Item, seen: Set[bytes], fresh: set[bytes], decoder: Decoder | None) -> None:
        if decoder is not None:
            data = b""
            event = _decode_foreign(item.record, decoder)
            if event is None:
                item.outcome = Outcome.UNHANDLED
                return
            item.envelope = envelope = _foreign_envelope(item.record, event)
        else:
            event = None
            envelope, data = decode_record(item.record, extensions=self._extensions)
            item.envelope = envelope
        item.identity = identity = envelope.identity
        if identity in seen or identity in fresh:
            item.outcome = Outcome.DUPLICATE_ID
            return
        handler = self._handlers.get(envelope.type)
        event_type = self._types.get(envelope.type)
        if event_type is None:
            raise UnknownTypeError(f"the type {envelope.type!r} is not declared by this service.")
        item.event_type = event_type
        if handler is None:
            item.outcome = Outcome.UNHANDLED
            return
        item.handler = handler
        item.event = event if event is not None else event_type.decode(data)
        item.key = event_key(envelope, event_type, item.event)
        fresh.add(identity)


def _decode_foreign(record: Record, decoder: Decoder) -> object:
    try:
        return decoder(record)
    except Exception as error:
        raise DecodeError(f"the decoder of topic {record.topic!r} raised {type(error).__name__}: {error}") from error


def _foreign_envelope(record: Record, event: object) -> Envelope:
    event_type = event_type_of(event)
    if event_type is None:
        raise DecodeError(
            f"the decoder of topic {record.topic!r} returned a {type(event).__name__}, which is no event type."
        )
    return Envelope(
        id=f"{record.partition}/{record.offset}",
        source=f"/topics/{record.topic}",
        type=event_type.type,
        datacontenttype="application/json",
    )
