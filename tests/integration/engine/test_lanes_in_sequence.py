"""What Postgres keeps of lanes in sequence: numbers that nothing overtakes, attempts of the head, and times."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from headrace.engine.lanes import Lane, Lanes, open_lanes, park
from headrace.engine.verdict import Park
from headrace.handlers.policy import Policy
from headrace.item import Item
from headrace.log.ports import StoredRecord
from headrace.order.numbers import number_of


def lanes_in_sequence() -> Lanes:
    return Lanes(lambda handler: Policy(12, 0.5, 300.0), is_in_sequence=True)


def event(place: int | None, number: int = 0) -> Item:
    return Item(StoredRecord("pages", 0, 0, 0, b"a", b"", ()), key="a", place=place, number=number)


async def test_next_owner_goes_on_behind_all_arrivals(pool: asyncpg.Pool) -> None:
    """The event with the highest place has not come last; one of an internal type has no place but its arrival."""
    async with pool.acquire() as borrowed:
        connection: Any = borrowed
        numbers = [number_of(9, 1, is_replay=False), number_of(0, 6, is_replay=False), number_of(3, 7, is_replay=True)]
        await park(connection, "notes", 0, [event(None, number) for number in numbers])
        await open_lanes(connection, "notes", 0, {"a": Lane(due=0.0, since=0.0)})
        lanes = lanes_in_sequence()
        await lanes.load(connection, "notes", 0)
        joining = lanes.number_of(event(None), lanes.next_number, lanes.by_key["a"])
        assert joining > numbers[1], "internal events run as they come"


@pytest.mark.parametrize("is_replay", [False, True], ids=["moved behind another", "replayed"])
async def test_nothing_is_sorted_before_a_head_that_failed(pool: asyncpg.Pool, is_replay: bool) -> None:
    """Its number is higher than its place says: what joins would be blamed for its attempts."""
    head = event(2, number_of(2 if is_replay else 3, 5, is_replay=is_replay))
    lanes = lanes_in_sequence()
    lane = lanes.opened(Park(attempts=1, delay=0.0), head)
    lane.error_type, lane.arrival = "ValueError", 5
    assert lanes.number_of(event(None), 6, lane) > head.number
    assert lanes.number_of(event(2), 6, lane) > head.number
    async with pool.acquire() as borrowed:
        connection: Any = borrowed
        await park(connection, "notes", 0, [head])
        await open_lanes(connection, "notes", 0, {"a": lane})
        next_owner = lanes_in_sequence()
        await next_owner.load(connection, "notes", 0)
        assert next_owner.number_of(event(None), 6, next_owner.by_key["a"]) > head.number


async def test_missing_event_is_not_to_blame_for_looks_that_died(pool: asyncpg.Pool) -> None:
    """Owners died when they were to look for the gap. What joins behind the head, or has no place, changes nothing."""
    head = event(5, number_of(5, 1, is_replay=False))
    async with pool.acquire() as borrowed:
        connection: Any = borrowed
        await park(connection, "notes", 0, [head])
        await open_lanes(connection, "notes", 0, {"a": Lane(due=0.0, since=0.0, error_type="SequenceGapError")})
        await connection.execute("update headrace.lane set attempts = 12")
        lanes = lanes_in_sequence()
        await lanes.load(connection, "notes", 0)
        attempts = []
        for place in (6, None, 4):
            joining = event(place)
            joining.number = lanes.number_of(joining, lanes.next_number, lanes.by_key["a"])
            lanes.follow({}, (), [joining])
            attempts.append(lanes.by_key["a"].attempts)
        assert attempts == [12, 12, 0]


@pytest.mark.parametrize("found", [2, 7], ids=["same gap", "another gap"])
async def test_released_gap_stays_released_if_a_run_looks_at_it(pool: asyncpg.Pool, found: int) -> None:
    """Its owner does not know yet that an operator has let it go on."""
    async with pool.acquire() as borrowed:
        connection: Any = borrowed
        await park(connection, "notes", 0, [event(9, number_of(9, 1, is_replay=False))])
        for expected in (2, found):
            lane = Lane(due=1e12, since=0.0, error=f"{expected} is missing", error_type="SequenceGapError")
            await open_lanes(connection, "notes", 0, {"a": lane})
            due = await connection.fetchval("select due_at <= now() from headrace.lane")
            await connection.execute("update headrace.lane set due_at = now()")
        assert due == (found == 2)


def test_largest_place_can_be_replayed() -> None:
    largest = 2**43 - 1
    lanes = lanes_in_sequence()
    lane = lanes.opened(Park(attempts=1, delay=0.0), event(largest, number_of(largest, 5, is_replay=True)))
    assert lanes.number_of(event(1), 6, lane) < 2**63
