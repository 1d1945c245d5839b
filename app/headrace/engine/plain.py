"""Items of plain records: written by the platform, new, of a type that a handler takes, and right.

These are nearly all, so they are made fast: in C (`_speedups.c`), or a column at a time where that is not installed
(`columns.py`). Whatever else a record may be is decided by `BatchDecoder` alone, one record at a time. Both may leave
any record to it, and make no items but those that it would make (tests/unit/engine/test_plain.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from headrace.cloudevents import declared_key
from headrace.cloudevents.record import is_own
from headrace.engine.columns import Columns
from headrace.engine.taken import taken_by
from headrace.event import EventType
from headrace.handlers.subscription import Subscription
from headrace.item import Item, Outcome
from headrace.log.ports import Record
from headrace.native import speedups


class PlainItems(Protocol):
    """Makes the items of plain records of one subscription."""

    @property
    def skipped(self) -> int:
        """After how many others it is worth asking again, behind a record that is not plain."""

    def items(
        self, records: Sequence[Record], begin: int, seen: Mapping[bytes, int], fresh: dict[bytes, int], /
    ) -> list[Item]:
        """Return READY items for records from `begin` on, up to one that is not plain, or fewer.

        `seen` are the marks of the dedupe window, `fresh` those of the batch's events before these; theirs are added.
        Raises: MemoryError.
        """


def plain_items(
    subscription: Subscription, types: Mapping[str, EventType], foreign_topics: Collection[str]
) -> PlainItems:
    """Return what makes the items of plain records of the subscription."""
    taken, foreign = taken_by(subscription, types), frozenset(foreign_topics)
    if speedups is None:
        return Columns(taken, foreign)
    plain: PlainItems = speedups.Plain(Item, Outcome.READY, declared_key, is_own, foreign, tuple(taken))
    return plain
