"""Lanes: the parked events of one key, in order, waiting for a retry.

The owner keeps which keys have a lane, how many events wait there and when the head is due; the events themselves stay
in Postgres. A run of a lane's head is counted before it starts, so that an event that ends its process uses up an
attempt. A run that an outage ended uses up none: the row says that a run had begun (`is_running`), and only an owner
that died while it was running is held against the event.

A key whose events took long is `aside`: until one of them is quick again they run in its lane alone, and no batch waits
for the next one.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from headrace import sql
from headrace.database.pool import Connection
from headrace.engine.steady import SteadyClock
from headrace.engine.verdict import Park
from headrace.errors import HandlerError, SequenceGapError
from headrace.handlers.policy import Policy
from headrace.handlers.subscription import Handler
from headrace.item import Item, Outcome
from headrace.ledger.dead_letters import error_type
from headrace.log.ports import StoredRecord
from headrace.log.stored import pack_headers, plain, stored_record
from headrace.order.numbers import behind, number_of

MOST_ASIDE = 10_000
"""Keys that are remembered for having taken long, of one partition."""

ROUNDED_SECONDS = 0.001
"""Postgres keeps times in microseconds: one that differs by more is another one."""

ASIDE = "events of this key took long, so they run in its lane, beside all others."

PolicyOf: TypeAlias = Callable[[Handler | None], Policy]


class Lane(msgspec.Struct):
    """One key's lane. `due` and `since` are Unix seconds; `attempts` are the head's runs so far.

    A lane that is never due is held: only an operator's retry runs it again.
    """

    due: float
    since: float
    attempts: int = 0
    events: int = 0
    error: str = ""
    error_type: str | None = None
    handler: str | None = None
    """What failed: the handler of the head, and the class of its error."""
    is_counted: bool = False
    """True if the head's next run was counted already, and an outage ended it."""
    place: int = 0
    """Of a head whose handler has failed, in a subscription in sequence: what joins has this place at least, so that it
    is not sorted before the head."""
    expected: int | None = None
    """The place that a gap waits for; None while the lane runs, and as long as this owner has not looked."""
    arrival: int = 0
    """In a subscription in sequence, the order of arrival that the number of the event ends with that came last."""
    head: int = 0
    """The number of the head whose runs were counted, if they died while the lane waited for a gap."""
    is_asked: bool = False
    """True if an operator lets the key go on without what a gap waits for."""

    @property
    def is_gap(self) -> bool:
        """True if the head waits for events before it, up to `due`."""
        return self.error_type == SequenceGapError.__name__


class Lanes:
    """The lanes of one partition of one subscription, by key."""

    def __init__(
        self, policy_of: PolicyOf, changed: Callable[[], None] = lambda: None, *, is_in_sequence: bool = False
    ) -> None:
        """`changed` is called when other lanes are due, or at other times, than before.

        `is_in_sequence`: lanes are in the order of their events' places, and some wait for a gap to be filled.
        """
        self._is_in_sequence = is_in_sequence
        self.filled: dict[str, None] = {}
        """Keys whose gap may have been filled: their lanes are due, whatever they say."""
        self._joined: set[str] = set()
        """Keys that wait for no gap, and whose lane an event has joined since it was taken: the run has not seen it."""
        self.gaps_until = 0.0
        """No gap's wait is over before, since the log is not read (endless), or was not for a while."""
        self._put_off: dict[str, None] = {}
        """Keys whose gap is due, and put off until then."""
        self.policy_of = policy_of
        """Returns the policy of a handler."""
        self._changed = changed
        self.now = SteadyClock().now
        """Tells the time by which lanes are due."""
        self.by_key: dict[str, Lane] = {}
        self.events = 0
        """How many events wait in all lanes."""
        self.aside: dict[str, None] = {}
        """Keys whose events took long, the latest last."""
        self.next_number = 1
        self._due: list[tuple[float, str]] = []
        """A heap of (due, key); entries whose lane has gone, or is due at another time, are passed over."""

    def policy_of_probe(self, handler: Handler | None) -> Policy:
        """Return the policy of a handler while an event is a probe: whatever it raises is of the outage."""
        return self.policy_of(handler).in_an_outage()

    async def load(self, connection: Connection, group: str, partition: int) -> None:
        """Read which keys are parked. A run that had begun counts if its owner died, which the claim has noted."""
        rows = await connection.fetch(sql.lane.LOAD, group, partition)
        self.by_key = {}
        for row in rows:
            key = row["key"].decode()
            # A run that found a gap, or died before its end, was counted as well: its head has not failed.
            has_failed = row["attempts"] and row["error_type"] not in (None, SequenceGapError.__name__)
            lane = self.by_key[key] = Lane(
                due=row["due"],
                since=row["since"],
                attempts=row["attempts"],
                events=row["events"],
                error=row["error"],
                error_type=row["error_type"],
                handler=row["handler"],
                is_counted=row["is_running"],
                place=behind(row["head"]) if self._is_in_sequence and has_failed else 0,
            )
            lane.arrival = row["arrival"] if self._is_in_sequence else 0
            lane.head = row["head"] if lane.is_gap and not lane.is_counted else 0
        self.events = sum(lane.events for lane in self.by_key.values())
        self.filled = {key: None for key, lane in self.by_key.items() if lane.is_gap}
        self.stand_still()
        self._sort()
        numbers = [row["number"] for row in rows]
        self.next_number = max(numbers, default=0) + 1

    async def read_due_times(self, connection: Connection, group: str, partition: int) -> None:
        """Read when the lanes are due, since an operator asked for a retry. Raises: StateError."""
        for row in await connection.fetch(sql.lane.DUE_TIMES, group, partition):
            if (lane := self.by_key.get(row["key"].decode())) is not None:
                lane.is_asked |= lane.is_gap and abs(row["due"] - lane.due) > ROUNDED_SECONDS
                lane.due = row["due"]
        self._sort()

    def stand_still(self) -> None:
        """The log is not read for now: what gaps wait for may come meanwhile."""
        if self._is_in_sequence:
            self.gaps_until = math.inf

    @property
    def stands_still(self) -> bool:
        """True if the log is not read."""
        return self.gaps_until == math.inf

    def read_on(self) -> None:
        """The log is read again: no gap's wait is over before it `caught_up`, or for as long as one is waited for."""
        self.gaps_until = self.now() + self.policy_of(None).gap_seconds

    def caught_up(self) -> None:
        """What came into the log while it was not read has been read."""
        self.gaps_until = 0.0
        self._changed()

    def follow(self, lanes: Mapping[str, Lane], closed: Iterable[str], parked: Sequence[Item]) -> None:
        """Follow what was committed: lanes as they are now, keys without one, events that joined."""
        for key in (*lanes, *closed):
            if (before := self.by_key.pop(key, None)) is not None:
                self.events -= before.events
        self.by_key.update(lanes)
        self.events += sum(lane.events for lane in lanes.values()) + len(parked)
        self.put_back(lanes)
        for item in parked:
            self._join(item)
        self._joined.difference_update(closed)
        for key in self._joined.intersection(lanes):
            if lanes[key].is_gap:
                self._may_be_filled(key)
        self.next_number += len(parked)

    def _join(self, item: Item) -> None:
        assert item.key is not None
        lane = self.by_key[item.key]
        lane.events += 1
        if item.place is not None and item.number < lane.head and not lane.is_counted:
            lane.attempts = lane.head = 0  # the runs that died have not called its handler
        if not lane.is_gap:
            if self._is_in_sequence:
                self._joined.add(item.key)
        elif item.place is None or lane.expected is None or item.place <= lane.expected:
            self._may_be_filled(item.key)

    def _may_be_filled(self, key: str) -> None:
        self._joined.discard(key)
        self.filled[key] = None
        self._changed()

    def hold_back(self, items: Iterable[Item]) -> None:
        """Let the events of keys that have a lane wait in it, before a run begins: the lane may end meanwhile."""
        by_key, aside, ready = self.by_key, self.aside, Outcome.READY
        if not (by_key or aside):
            return
        for item in items:
            if item.outcome is ready:
                if item.key in by_key:
                    item.outcome = Outcome.BEHIND_KEY
                elif item.key in aside:
                    item.failed(Outcome.SLOW, HandlerError(ASIDE, ""))

    def take_due(self, now: float, limit: int, busy: Container[str] = ()) -> list[str]:
        """Return keys whose head may run, the longest due first; each is returned once, until it is put back.

        Those that are `busy` are left out: they are put back when they are not any more.
        """
        if self._put_off and now >= self.gaps_until:
            self._sort()
        filled_keys = [filled for filled in self.filled if filled in self.by_key and filled not in busy]
        keys = dict.fromkeys(filled_keys[:limit])
        for filled in keys:
            del self.filled[filled]
        while len(keys) < limit and (key := self._first()) is not None and self.by_key[key].due <= now:
            heapq.heappop(self._due)
            if self.by_key[key].is_gap and not self.has_waited(key, now):
                self._put_off[key] = None
            elif key not in busy and key not in keys:
                keys[key] = None
        self._joined.difference_update(keys)
        for key in keys:  # the run may fill one gap and find another, whose event has joined meanwhile
            self.by_key[key].expected = None
        return list(keys)

    def put_back(self, keys: Iterable[str]) -> None:
        """Let the keys' lanes be taken when they are due; a gap that was taken, and no run has seen, is due now."""
        for key in keys:
            if (lane := self.by_key.get(key)) is None:
                continue
            if lane.is_gap and lane.expected is None:
                self.filled[key] = None
            if lane.due < math.inf:
                heapq.heappush(self._due, (lane.due, key))
        if len(self._due) > 2 * len(self.by_key) + 1_000:
            self._sort()
        self._changed()

    def has_waited(self, key: str, now: float) -> bool:
        """True if the key's lane waits for a gap, and its time is over."""
        lane = self.by_key[key]
        return lane.is_gap and lane.due <= now and (lane.is_asked or now >= self.gaps_until)

    def seconds_to_next(self, now: float) -> float | None:
        """Return the seconds until a lane is due, or None when none will be."""
        if self.filled:
            return 0.0
        times = [self.by_key[key].due] if (key := self._first()) is not None else []
        if self._put_off and not self.stands_still:
            times.append(self.gaps_until)
        return max(0.0, min(times) - now) if times else None

    def _first(self) -> str | None:
        """Return the key that is due first."""
        while self._due:
            due, key = self._due[0]
            lane = self.by_key.get(key)
            if lane is not None and lane.due == due:
                return key
            heapq.heappop(self._due)
        return None

    def move(self, seconds: float) -> None:
        """Let the lanes be due so much earlier, as if the time had passed; for tests."""
        for lane in self.by_key.values():
            lane.due -= seconds
        self.gaps_until -= seconds
        self._sort()

    def _sort(self) -> None:
        self._due = [(lane.due, key) for key, lane in self.by_key.items() if lane.due < math.inf]
        heapq.heapify(self._due)
        self._put_off.clear()
        self._changed()

    def set_aside(self, key: str) -> None:
        """Remember that the key's events take long."""
        self.aside.pop(key, None)
        self.aside[key] = None
        if len(self.aside) > MOST_ASIDE:
            del self.aside[next(iter(self.aside))]

    def opened(self, park: Park, item: Item) -> Lane:
        """Return the lane that a failing event opens."""
        lane = Lane(due=0.0, since=time.time())
        self.park(lane, park, item)
        return lane

    def park(self, lane: Lane, park: Park, item: Item) -> None:
        """Let the lane's head wait as the verdict says, and note why."""
        lane.attempts, lane.due = park.attempts, self.due_after(park)
        lane.error, lane.error_type = reason_of(item), error_type(item.error)
        lane.place = max(item.place or 0, behind(item.number)) if park.attempts and self._is_in_sequence else 0
        lane.expected = item.error.expected if isinstance(item.error, SequenceGapError) else None
        lane.handler = item.handler.name if item.handler is not None else None

    def number_of(self, item: Item, number: int, lane: Lane, *, is_replay: bool = False) -> int:
        """Return the number of an event that joins a lane: none comes before a head that has failed.

        It is the next `number` of the partition, unless it is to begin with the event's place.
        """
        if not self._is_in_sequence:
            return number
        lane.arrival += 1  # a number that is not written after all is left out
        return number_of(max(item.place or 0, lane.place), lane.arrival, is_replay=is_replay)

    def due_after(self, park: Park) -> float:
        """Return when a lane is due, in Unix seconds: chance takes off a part of the delay."""
        return self.now() + park.delay * (1.0 - park.jitter * random.random())  # noqa: S311 - no secret


def reason_of(item: Item) -> str:
    """Return why an event waits, or was given up on."""
    return plain(str(item.error or item.outcome.value))


async def read_heads(
    connection: Connection, group: str, partition: int, most: Mapping[str, int], *, max_bytes: int
) -> list[tuple[str, int, StoredRecord]]:
    """Return (key, number, record) of the first events of lanes: so `most` of each, `max_bytes` in all or a single one.

    The lanes come in the order given; the last ones are missing when the bytes do not suffice.
    """
    rows = await connection.fetch(
        sql.lane.FIRST_EVENTS, group, partition, [key.encode() for key in most], list(most.values()), max_bytes
    )
    return [(row["key"].decode(), row["number"], stored_record(row, partition)) for row in rows]


async def count_runs(connection: Connection, group: str, partition: int, attempts: Mapping[str, int]) -> None:
    """Write the heads' attempts, by key, of runs that are about to start."""
    keys = sorted(attempts)
    await connection.execute(
        sql.lane.COUNT_RUN, group, partition, [key.encode() for key in keys], [attempts[key] for key in keys]
    )


async def park(connection: Connection, group: str, partition: int, items: Sequence[Item]) -> None:
    """Append the items, numbered by the caller, to their lanes."""
    await connection.execute(sql.lane.PARK, group, partition, *zip(*(_row(item) for item in items), strict=True))


async def open_lanes(connection: Connection, group: str, partition: int, lanes: Mapping[str, Lane]) -> None:
    """Write the lanes' rows, sorted by key."""
    rows = [
        (key.encode(), lane.attempts, lane.due, lane.error, lane.error_type, lane.handler)
        for key, lane in sorted(lanes.items())
    ]
    await connection.execute(sql.lane.OPEN, group, partition, *zip(*rows, strict=True))


async def unpark(connection: Connection, group: str, partition: int, items: Sequence[Item]) -> None:
    """Remove the items from their lanes."""
    keys = [(item.key or "").encode() for item in items]
    await connection.execute(sql.lane.UNPARK, group, partition, keys, [item.number for item in items])


async def close_lanes(connection: Connection, group: str, partition: int, keys: Sequence[str]) -> None:
    """Remove the rows of empty lanes."""
    await connection.execute(sql.lane.CLOSE, group, partition, [key.encode() for key in keys])


def _row(item: Item) -> tuple[Any, ...]:
    record, envelope = item.record, item.envelope
    assert item.key is not None
    return (
        item.key.encode(),
        item.number,
        record.topic,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        pack_headers(record.headers),
        plain(envelope.source),
        plain(envelope.id),
        plain(envelope.type),
        item.outcome.value,
    )
