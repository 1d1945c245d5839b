"""What a person does with lanes, over HTTP and on the command line alike: list them, and have them retried now."""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

import msgspec

from headrace import sql
from headrace.database.pool import Connection, Row
from headrace.dead_letters.shown import shown_bytes
from headrace.log.stored import plain


class Filter(NamedTuple):
    """Which lanes are meant; None means all."""

    group: str | None = None
    """Those of this group, such as `shop.wallets`."""
    subscription: str | None = None
    """Those of the subscriptions of this name or group, whatever their service is."""
    key: str | None = None
    handler: str | None = None
    """Those whose first event this handler failed on."""
    error_type: str | None = None
    """Those whose first event failed with this class of error, such as `KeyError`."""
    is_held: bool | None = None
    """True: those that only an operator's retry runs again; False: those that are retried by themselves."""

    @property
    def arguments(self) -> tuple[object, ...]:
        """The filter as the queries take it: keys are bytes, since text of Postgres cannot hold every key."""
        key = self.key.encode() if self.key is not None else None
        names = (_held(self.subscription), key, _held(self.handler), _held(self.error_type))
        return (self.group, *names, self.is_held)


class Place(NamedTuple):
    """Where a page ended: the last lane that it showed."""

    group: str
    partition: int
    key: bytes

    @property
    def cursor(self) -> str:
        """The place as text for a URL."""
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode()


def _held(name: str | None) -> str | None:
    """Return a name as a query can ask for it: Postgres refuses a NUL, and nothing that it holds is named so."""
    return plain(name) if name is not None else None


def place_of(row: Row) -> Place:
    """Return the place behind a row."""
    return Place(row["subscription"], row["partition"], row["key"])


_decode_place = msgspec.msgpack.Decoder(tuple[str, int, bytes]).decode


def parse_place(cursor: str) -> Place:
    """Return the place of a cursor. Raises: ValueError (it is not one of `Place.cursor`)."""
    try:
        place = Place(*_decode_place(base64.urlsafe_b64decode(cursor)))
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise ValueError(cursor) from error
    if "\x00" in place.group or not 0 <= place.partition < 2**31:
        raise ValueError(cursor)
    return place


async def find(connection: Connection, wanted: Filter, after: Place | None, limit: int) -> list[Row]:
    """Return lanes by group, partition and key, from behind the place. Raises: asyncpg's errors."""
    return list(await connection.fetch(sql.lane.LIST, *wanted.arguments, *(after or (None, None, None)), limit))


async def retry(connection: Connection, wanted: Filter) -> int:
    """Make the lanes due now, and return how many they are.

    Their owners hear of it by `headrace.subscription.retry_requested_at`, and then read the due times again.
    """
    return int(await connection.fetchval(sql.lane.RETRY_NOW, *wanted.arguments))


def shown(row: Row, subscription: str) -> dict[str, Any]:
    """Return what a list shows of a lane; `subscription` is the name that the caller knows it by."""
    return {
        "subscription": subscription,
        "partition": row["partition"],
        **shown_bytes("key", row["key"]),
        "attempts": row["attempts"],
        "held": row["due_at"] is None,
        "next_attempt_at": row["due_at"],
        "parked_at": row["parked_at"],
        "events": row["events"],
        "error": row["error"],
        "error_type": row["error_type"],
        "handler": row["handler"],
        "head": {
            "type": row["type"],
            "source": row["source"],
            "event_id": row["event_id"],
            "topic": row["topic"],
            "partition": row["partition"],
            "offset": row["offset"],
            "reason": row["reason"],
        },
    }
