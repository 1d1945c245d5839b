"""A record whose time no calendar has, such as nanoseconds that a producer sent, is explained all the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from headrace.explain.fate import Fate
from headrace.explain.log_search import find_pending, with_acceptance
from headrace.explain.search import Asked
from headrace.log.ports import Bounds, Log, NewRecord, StoredRecord, TopicPartition
from headrace.rewind.timers import _due_at
from headrace.timers.changes import Due, SetTimer

NANOSECONDS = 1_700_000_000_000_000_000
PLACE = TopicPartition("t", 0)
HEADERS = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/x"), ("ce_type", b"y"))
RECORD = StoredRecord("t", 0, 7, NANOSECONDS, b"k", b"{}", HEADERS)


class OneRecord:
    """A log, and its reader, of one record."""

    def __init__(self) -> None:
        self._left = [RECORD]

    async def bounds(self, partitions: object) -> dict[TopicPartition, Bounds]:
        return {PLACE: Bounds(7, 8, 8)}

    async def reader(self, positions: object) -> OneRecord:
        return self

    async def fetch(self, *_: object) -> dict[TopicPartition, list[StoredRecord]]:
        return {PLACE: [self._left.pop()]} if self._left else {}

    async def close(self) -> None: ...


async def test_an_explanation_leaves_the_time_out() -> None:
    log = cast("Log", OneRecord())
    fate = Fate("s", "applied", "", "/x", "y", "t", 0, 7)
    assert await with_acceptance(log, [fate]) == [fate]


async def test_what_waits_in_the_log_is_found_without_a_time() -> None:
    subscription: Any = SimpleNamespace(name="s", event_types={"y"})
    found = await find_pending(cast("Log", OneRecord()), subscription, {PLACE: 7}, Asked("1", None, None))
    assert found is not None and (found.outcome, found.accepted_at) == ("pending", None)


def test_a_timer_that_such_a_record_set_is_due_some_time() -> None:
    timer = SetTimer("y", "k", "n", Due(60.0, None), NewRecord("t", b"k", b"{}", []))
    item: Any = SimpleNamespace(record=RECORD)
    assert _due_at(timer, item).tzinfo is not None
