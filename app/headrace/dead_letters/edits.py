"""Edits an open dead letter: the record stays as it was, and what a person made of its value is replayed instead.

An edit keeps who the event is (source, type and id) and where it belongs (its key): what is replayed is the event that
came, mended. It is read here with the same code as in its replay, so that it cannot fail there for its form.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

import msgspec

from headrace import sql
from headrace.cloudevents import decode_record, event_key
from headrace.database.pool import Connection, Row
from headrace.dead_letters.decisions import Act, Refused, refused
from headrace.dead_letters.search import read
from headrace.engine.decode import BatchDecoder, decoded
from headrace.errors import EventError, SchemaError, UnknownTypeError
from headrace.item import DEAD
from headrace.ledger.dead_letters import EMIT_REFUSED
from headrace.log.ports import StoredRecord
from headrace.log.stored import plain, stored_record
from headrace.registry import Registry

STRUCTURED = "application/cloudevents"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Edit(NamedTuple):
    """What shall be replayed. One of the two is given."""

    data: bytes | None = None
    """The event's data, as JSON; its attributes stay."""
    value: bytes | None = None
    """The whole value of the record, for one that is no CloudEvent."""


class Edited(NamedTuple):
    """The edit is kept with the letter."""

    group: str
    facts: dict[str, object]
    """What the server's log says of it."""


async def edit(connection: Connection, identity: UUID, wanted: Edit, act: Act, registry: Registry) -> Edited | Refused:
    """Keep what shall be replayed instead of the record; a later edit takes its place.

    Raises: EventError (the edit does not fit the event type, or would make another event of it), SchemaRegistryError.
    """
    known = await read(connection, identity, registry.service)
    if known is None or known["decision"] is not None:
        return refused(known, identity)

    async def check() -> bytes:
        return edited_value(known, wanted, registry)

    value = await decoded(check)
    row = await connection.fetchrow(sql.dead_letter.EDIT, identity, value, registry.service, *act.arguments)
    if row is None:
        return refused(await read(connection, identity, registry.service), identity)
    return Edited(row["subscription"], dict(row))


def edited_value(row: Row, wanted: Edit, registry: Registry) -> bytes:
    """Return the record's value as it is to be replayed. Raises: EventError."""
    record = stored_record(row, row["partition"])
    value = wanted.value if wanted.value is not None else _with_data(record, wanted.data or b"", registry)
    edited = msgspec.structs.replace(record, value=value)
    if row["reason"] == EMIT_REFUSED:
        _check_emit(row, edited, registry)
        return value
    decoder = _decoder(row["subscription"], registry)
    item, original = decoder.decode([edited], {})[0], decoder.decode([record], {})[0]
    if item.outcome in DEAD:
        assert isinstance(item.error, EventError)
        raise item.error
    if item.key is None:
        raise UnknownTypeError(f"no handler of {row['subscription']} takes the type {item.envelope.type!r}.")
    _check_identity(row, item.envelope.source, item.envelope.type, item.envelope.id)
    is_foreign = record.topic in registry.decoders
    _check_key(original.key or (_text(record.key) if not is_foreign else None), item.key)
    return value


def _with_data(record: StoredRecord, data: bytes, registry: Registry) -> bytes:
    """Return the record's value with other data in it. Raises: SchemaError (it is no CloudEvent that has data)."""
    if record.topic in registry.decoders:
        raise SchemaError(f"a decoder reads the records of the topic {record.topic!r}; give the record's whole value.")
    headers = {name.lower(): value or b"" for name, value in record.headers}
    content_type = headers.get("content-type", b"").decode("utf-8", "replace").lower()
    is_binary = any(name.startswith("ce_") for name in headers) and not content_type.startswith(STRUCTURED)
    if is_binary:
        return data
    try:
        members = _members.decode(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError(
            f"the record is no JSON object that data can be put into ({error}); give its value."
        ) from error
    members.pop("data_base64", None)
    return msgspec.json.encode(members | {"data": msgspec.Raw(data)})


def _decoder(group: str, registry: Registry) -> BatchDecoder:
    for subscription in registry.subscriptions.values():
        if subscription.group == group:
            return BatchDecoder(subscription, registry.types, registry.decoders)
    raise UnknownTypeError(f"the service does not declare the subscription {group}, so that nobody can read the event.")


def _check_emit(row: Row, edited: StoredRecord, registry: Registry) -> None:
    """Check an emitted event, which no handler of the subscription may take."""
    envelope, data = decode_record(edited)
    event_type = registry.types.get(envelope.type)
    if event_type is None:
        raise UnknownTypeError(f"the type {envelope.type!r} is not declared by this service.")
    key = event_key(envelope, event_type, event_type.decode_version(data, event_type.version_of(envelope.dataschema)))
    _check_identity(row, envelope.source, envelope.type, envelope.id)
    _check_key(_text(edited.key), key)


def _check_identity(row: Row, source: str, type_: str, event_id: str) -> None:
    known, now = (row["source"], row["type"], row["event_id"]), (plain(source), plain(type_), plain(event_id))
    if row["event_id"] is not None and known != now:
        raise SchemaError(
            f"the edit makes {now[2]!r} of {now[0]!r}, type {now[1]!r}, out of {known[2]!r} of {known[0]!r}, type "
            f"{known[1]!r}; keep source, type and id, or publish another event."
        )


def _check_key(known: str | None, key: str) -> None:
    if known is not None and known != key:
        raise SchemaError(
            f"the edit changes the event's key from {known!r} to {key!r}, and with it the events that it is in order "
            "with; keep the key, or discard this one and publish another event."
        )


def _text(key: bytes | None) -> str | None:
    return key.decode("utf-8", "replace") if key is not None else None
