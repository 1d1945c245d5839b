"""Looks for one event in the tables of one subscription."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from headrace import sql
from headrace.cloudevents import decode_record
from headrace.database.pool import Connection, Row
from headrace.emits.emitter import emit_id, ids_of
from headrace.envelope import identity
from headrace.errors import SequenceGapError
from headrace.explain.effects import with_effect
from headrace.explain.fate import Emitted, Fate
from headrace.handlers.subscription import Subscription
from headrace.ledger.rows import IDENTITY_BYTES, is_stale, true_offset, unpack_emits
from headrace.log.ports import StoredRecord
from headrace.log.stored import plain
from headrace.publishing.checking import source_of

ROWS, RETRIES = 10_000, 200
"""The newest ledger rows of a claim, and rows of retries, that are looked through."""
IDS = 200_000
"""The newest ids of a claim that are looked through."""
MOST_TIMERS = 1_000
"""Timers that an event may have set between two events that it emitted: they are counted together."""
_PLACE = re.compile(r"\d+/\d+/-?\d+")
"""What a record of a foreign topic has for an id: its partition, offset and time."""


class Asked(NamedTuple):
    """The event that is meant; without source and type those are tried that are known."""

    id: str
    source: str | None
    type: str | None


async def find_fates(
    connection: Connection, subscription: Subscription, asked: Asked, sources: Sequence[str]
) -> list[Fate]:
    """Return what the subscription did with the event; empty if its tables do not know it. Needs one snapshot.

    `sources` are tried if none is asked for. Raises: asyncpg's errors.
    """
    group, filters = subscription.group, [plain(text) if text is not None else None for text in asked]
    parked = await connection.fetch(sql.explain.PARKED, group, *filters)
    letters = await connection.fetch(sql.explain.DEAD_LETTERS, group, *filters)
    fates = [_parked(subscription, row, asked.id) for row in parked]
    settled = {(fate.source, fate.type) for fate in fates}
    for row in letters:
        if (row["source"], row["type"]) not in settled and row["settled_at"] is None:
            settled.add((row["source"], row["type"]))
            fates.append(
                await with_effect(connection, subscription, _dead(subscription, row), asked.id, row["handler"])
            )
    known = {(row["source"], row["type"]) for row in (*parked, *letters)}
    for source, type_ in sorted(_names(subscription, asked, sources) | known):
        if (source, type_) not in settled and (fate := await _applied(connection, subscription, asked, source, type_)):
            fates.append(await with_effect(connection, subscription, fate, asked.id))
    return fates


async def looked_since(connection: Connection, subscription: Subscription) -> datetime | None:
    """Return since when an event would have been found by its id; None if no id is kept. Raises: asyncpg's errors."""
    limits = ROWS, IDS * IDENTITY_BYTES
    since: datetime | None = await connection.fetchval(sql.explain.SINCE, subscription.group, *limits)
    return since


def _names(subscription: Subscription, asked: Asked, sources: Sequence[str]) -> set[tuple[str, str]]:
    """Return the (source, type) pairs to try: those asked for, else those that this service gives."""
    service = subscription.group.partition(".")[0]
    types = [asked.type] if asked.type else sorted(subscription.event_types)
    if asked.source:
        return {(asked.source, type_) for type_ in types}
    names = {(source, type_) for type_ in types for source in (source_of(service, type_), *sources)}
    if _PLACE.fullmatch(asked.id):
        names |= {
            (f"/topics/{subscription.event_types[type_].topic}", type_)
            for type_ in types
            if type_ in subscription.event_types
        }
    return names


def _parked(subscription: Subscription, row: Row, event_id: str) -> Fate:
    is_gap = row["error_type"] == SequenceGapError.__name__
    if row["head_offset"] == row["offset"] and is_gap:
        detail = f"it is held: {row['error']}; it waits for that until {row['due_at']:%H:%M:%S} UTC."
    elif row["head_offset"] == row["offset"] and row["due_at"] is None:
        detail = f"it failed ({row['error']}) and is held; it waits for `headrace lanes retry`."
    elif row["head_offset"] == row["offset"]:
        detail = f"it failed {row['attempts']} times ({row['error']}) and runs again at {row['due_at']:%H:%M:%S} UTC."
    else:
        detail = (
            f"it waits behind the event {row['head_id']} of its key (offset {row['head_offset']}), "
            f"which {'is held' if is_gap or row['due_at'] is None else 'fails'}: {row['error']}."
        )
    place = row["topic"], row["partition"], row["offset"]
    return Fate(subscription.name, "parked", detail, row["source"], row["type"], *place, row["parked_at"])


def _dead(subscription: Subscription, row: Row) -> Fate:
    after = {"replay": " It is to be replayed.", "discard": " It was discarded."}.get(row["decision"], "")
    detail = f"dead letter {row['id']} ({row['reason']}) after {row['attempts']} runs: {row['error']}.{after}"
    place = row["topic"], row["partition"], row["offset"]
    return Fate(subscription.name, "dead_letter", detail, row["source"], row["type"], *place, row["created_at"])


async def _applied(
    connection: Connection, subscription: Subscription, asked: Asked, source: str, type_: str
) -> Fate | None:
    topic = subscription.event_types[type_].topic if type_ in subscription.event_types else None
    if topic is None:
        return None
    identities = [identity(source, type_, asked.id)]
    found = await connection.fetch(
        sql.explain.LEDGER, subscription.group, topic, identities, ROWS, IDS * IDENTITY_BYTES
    )
    if not found:
        return None
    row = found[0]
    offset = int.from_bytes(row["offset"], "little", signed=True) if row["offset"] else None
    was_stale = offset is not None and is_stale(offset)
    offset = true_offset(offset) if offset is not None else None
    if offset is not None and offset >= row["next_offset"]:
        return None  # a rewind has taken it back: it waits in the log
    at = f"{row['committed_at']:%Y-%m-%d %H:%M:%S} UTC"
    place = row["topic"], row["partition"], offset
    if was_stale:
        detail = f"it was skipped as stale at {at}: a later event of its key had been applied."
        return Fate(subscription.name, "stale", detail, source, type_, *place, row["committed_at"])
    emitted = _emitted(row["emits"], row["id"], asked.id, row["sequence"] <= row["emitted_through"])
    waited = row["parked"] > 0
    if waited and not emitted:
        emitted = await _emitted_later(connection, subscription.group, row, asked.id)
    later = ", or from its lane later" + (", unless it was stale by then" if subscription.order is not None else "")
    detail = f"it was applied at {at}{later if waited else ''}."
    return Fate(subscription.name, "applied", detail, source, type_, *place, row["committed_at"], emitted=emitted)


async def _emitted_later(connection: Connection, group: str, row: Row, event_id: str) -> list[Emitted]:
    place = row["topic"], row["partition"], row["sequence"]
    for later in await connection.fetch(sql.explain.RETRIES_WITH_EMITS, group, *place, RETRIES):
        if emitted := _emitted(later["emits"], row["id"], event_id, later["sequence"] <= row["emitted_through"]):
            return emitted
    return []


def _emitted(packed: bytes | None, cause: bytes, event_id: str, published: bool) -> list[Emitted]:
    """Return what the event of an identity has emitted, of all that some batch has: another source may have its id."""
    if packed is None:
        return []
    found = []
    for record in unpack_emits(packed):
        stored = StoredRecord(record.topic, 0, -1, 0, record.key, record.value, (*record.headers,))
        envelope, _ = decode_record(stored)
        if envelope.causationid == event_id:
            found.append((envelope, record.topic))
    if not found:
        return []
    ids = ids_of(found[0][0].source)
    its = {emit_id(cause, position, ids) for position in range(len(found) + MOST_TIMERS)}
    return [Emitted(each.type, topic, each.id, published) for each, topic in found if each.id in its]
