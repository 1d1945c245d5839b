"""Turns records into items: decode, drop duplicates, find type, handler and key. No I/O; runs off the event loop.

What becomes of a record is decided here, one record at a time. Where nothing is to be decided, the same items are made
faster by what `plain.py` chooses.

What a decoder of a foreign topic has to fetch first, it fetches between two attempts: `decoded`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar
from zlib import crc32

from headrace.cloudevents import decode_record, event_key
from headrace.engine.plain import plain_items
from headrace.envelope import Envelope, identity
from headrace.errors import DecodeError, EventError, SchemaNotFetchedError, UnknownTypeError
from headrace.event import EventType, event_type_of
from headrace.handlers.subscription import Subscription
from headrace.item import NO_ENVELOPE, Item, Outcome
from headrace.log.ports import Record
from headrace.order.declared import place_of
from headrace.registry import Decoder
from headrace.telemetry.trace_context import is_sampled

_OUTCOMES = {"decode": Outcome.DECODE, "schema": Outcome.SCHEMA, "unknown_type": Outcome.UNKNOWN_TYPE}
_CRC = 0xFFFF_FFFF
MOST_SKIPPED = 128
"""Records that are decoded one by one before the next plain one is looked for, where none has been found for long."""

T = TypeVar("T")


class BatchDecoder:
    """Decodes the records of one subscription."""

    def __init__(
        self, subscription: Subscription, types: Mapping[str, EventType], decoders: Mapping[str, Decoder]
    ) -> None:
        self._handlers = subscription.handlers
        self._types = types
        self._decoders = decoders
        self._extensions = subscription.wants_envelope
        self._order = subscription.order
        self._plain = plain_items(subscription, types, decoders.keys())

    def decode(self, records: Sequence[Record], seen: Mapping[bytes, int]) -> list[Item]:
        """Return an item per record, in order; `seen` are the marks of the dedupe window.

        An identity counts as seen within the batch if its event is going to be applied or parked: an event that
        becomes a dead letter may be sent again, corrected, under its id. Whatever goes wrong with one record makes
        that record a dead letter. Raises: MemoryError (decode fewer records at a time), SchemaNotFetchedError (see
        `decoded`).
        """
        items: list[Item] = []
        fresh: dict[bytes, int] = {}
        lacking: list[SchemaNotFetchedError] = []
        begin, skipped = 0, self._plain.skipped
        while begin < len(records):
            made = self._plain.items(records, begin, seen, fresh)
            items += made
            begin += len(made)
            skipped = self._plain.skipped if made else skipped
            if not made:
                items += self._one_by_one(records[begin : begin + skipped], seen, fresh, lacking)
                begin, skipped = begin + skipped, min(2 * skipped, MOST_SKIPPED)
        if lacking:
            raise lacking[0].joined(lacking)
        return items

    def _one_by_one(
        self,
        records: Sequence[Record],
        seen: Mapping[bytes, int],
        fresh: dict[bytes, int],
        lacking: list[SchemaNotFetchedError],
    ) -> list[Item]:
        """Return an item per record that lacks no schema; `fresh` are the marks of the batch's events until now."""
        items: list[Item] = []
        decoders, handlers, types, extensions = self._decoders, self._handlers, self._types, self._extensions
        order = self._order
        keep, ready = items.append, Outcome.READY  # to ask an Enum for its member costs as much as a dictionary
        for record in records:
            envelope, event_type, event, handler = NO_ENVELOPE, None, None, None
            known, mark, key, outcome, place = b"", 0, None, ready, None
            error: EventError | None = None
            try:
                if decoders and (foreign := decoders.get(record.topic)) is not None:
                    event = _decode_foreign(record, foreign)
                    if event is None:
                        keep(Item(record, Outcome.UNHANDLED))
                        continue
                    envelope, data = _foreign_envelope(record, event), record.value or b""
                else:
                    envelope, data = decode_record(record, extensions=extensions)
                kind = envelope.type
                known = identity(envelope.source, kind, envelope.id)
                mark = record.offset << 32 | crc32(data)
                first = seen.get(known)
                if first is None:
                    first = fresh.get(known)
                event_type = types.get(kind)
                if first is not None:
                    is_same = first < 0 or first & _CRC == mark & _CRC
                    outcome, mark = Outcome.DUPLICATE_ID if is_same else Outcome.CONFLICTING_ID, first
                elif event_type is None:
                    raise UnknownTypeError(f"the type {kind!r} is not declared by this service.")
                elif (handler := handlers.get(kind)) is None:
                    outcome = Outcome.UNHANDLED
                else:
                    if envelope.dataschema is not None:
                        event_type.check_version(envelope.dataschema)
                    if event is None:
                        has_old = event_type.upcasts
                        event = _decode_old(event_type, envelope, data) if has_old else event_type.decode(data)
                    key = event_key(envelope, event_type, event)
                    if order is not None:
                        place = place_of(order, event_type, envelope, event)
                    fresh[known] = mark
            except EventError as reason:
                outcome, error = _OUTCOMES.get(reason.reason, Outcome.DECODE), reason
            except MemoryError:
                raise
            except SchemaNotFetchedError as reason:
                lacking.append(reason)
                continue
            except Exception as reason:
                outcome = Outcome.DECODE
                error = DecodeError(f"the record could not be read: {type(reason).__name__}: {reason}")
            # One call with all that is known: to set the fields one by one would cost as much as to decode the event.
            is_kept = is_sampled(envelope.traceparent)
            item = Item(record, outcome, envelope, event_type, event, handler, known, mark, key, is_kept)
            if error is not None:
                item.failed(outcome, error)
            elif place is not None:
                item.place = place
            keep(item)
        return items


async def decoded(decode: Callable[[], Awaitable[T]]) -> T:
    """Return what `decode` returns, once its decoders have the schemas that they need. Raises: SchemaRegistryError."""
    while True:
        try:
            return await decode()
        except SchemaNotFetchedError as lacking:
            await lacking.fetch()


def _decode_old(event_type: EventType, envelope: Envelope, data: bytes) -> object:
    return event_type.decode_version(data, event_type.version_of(envelope.dataschema))


def _decode_foreign(record: Record, decoder: Decoder) -> object:
    try:
        return decoder(record)
    except (MemoryError, EventError, SchemaNotFetchedError):
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
