"""How far subscriptions are: claims and lanes from Postgres, the log's end from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.errors import HeadraceError
from headrace.log.ports import Bounds, TopicPartition

if TYPE_CHECKING:
    from headrace.log.ports import Log

LOG_SECONDS = 5.0
"""How long an answer waits for the log; without it the lag is null, and the rest is told."""

CLAIMS = """
select subscription, topic, partition, owner, epoch, next_offset, committed_at from headrace.claim
where subscription = any($1::text[])
"""
PARKED = """
select subscription, topic, partition, count(distinct key) as keys, count(*) as events from headrace.parked
where subscription = any($1::text[]) group by subscription, topic, partition
"""
PAUSED = "select subscription from headrace.subscription where paused and subscription = any($1::text[])"

ResultT = TypeVar("ResultT")


async def read_progress(postgres: Any, log: Log | None, topics: dict[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Return what is known of each subscription, given the topics by group. A log that is away costs the lag only."""
    names = list(topics)
    claims = {_place(row): row for row in await postgres.fetch(CLAIMS, names)}
    parked = {_place(row): row for row in await postgres.fetch(PARKED, names)}
    paused = {row["subscription"] for row in await postgres.fetch(PAUSED, names)}
    every_topic = sorted({topic for of_one in topics.values() for topic in of_one})
    bounds, reason = await _bounds(log, every_topic)
    answer = []
    for name, of_one in topics.items():
        known = {place for place in (*claims, *parked) if place[0] == name}
        known |= {(name, partition.topic, partition.partition) for partition in bounds if partition.topic in of_one}
        partitions = [
            _partition(place, claims.get(place), parked.get(place), bounds.get(TopicPartition(*place[1:])))
            for place in sorted(known)
        ]
        lags = [partition["lag"] for partition in partitions]
        answer.append(
            {
                "name": name.partition(".")[2],
                "topics": of_one,
                "paused": name in paused,
                "lag": sum(lags) if None not in lags else None,
                "lag_unknown": reason,
                "parked_keys": sum(partition["parked_keys"] for partition in partitions),
                "parked_events": sum(partition["parked_events"] for partition in partitions),
                "partitions": partitions,
            }
        )
    return answer


def _place(row: Any) -> tuple[str, str, int]:
    return row["subscription"], row["topic"], row["partition"]


def _partition(place: tuple[str, str, int], claim: Any, parked: Any, bounds: Bounds | None) -> dict[str, Any]:
    next_offset = claim["next_offset"] if claim is not None else None
    lag = None
    if bounds is not None:
        # What retention took away is lost, not pending; a partition never claimed has all of its records before it.
        lag = max(0, bounds.end - max(bounds.begin, next_offset if next_offset is not None else 0))
    return {
        "topic": place[1],
        "partition": place[2],
        "owner": claim["owner"] if claim is not None else None,
        "epoch": claim["epoch"] if claim is not None else None,
        "next_offset": next_offset,
        "end_offset": bounds.end if bounds is not None else None,
        "lag": lag,
        "parked_keys": parked["keys"] if parked is not None else 0,
        "parked_events": parked["events"] if parked is not None else 0,
        "committed_at": claim["committed_at"] if claim is not None else None,
    }


async def _bounds(log: Log | None, topics: Sequence[str]) -> tuple[dict[TopicPartition, Bounds], str | None]:
    """Return the bounds of every partition, or why they are not known."""
    if log is None:
        return {}, "the log is not connected yet"
    try:
        infos = await in_time(log.topics(topics))
        partitions = [TopicPartition(i.topic, number) for i in infos.values() for number in range(i.partitions)]
        return await in_time(log.bounds(partitions)), None
    except HeadraceError as error:
        return {}, str(error)
    except TimeoutError:
        return {}, f"the log did not answer within {LOG_SECONDS:g} s"


async def in_time(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Wait for the log's answer, but not for ever; the call goes on, since a log need not stand a cancellation."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(_forget)
    done, _ = await asyncio.wait((task,), timeout=LOG_SECONDS)
    if not done:
        raise TimeoutError
    return task.result()


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # asked for, so that a late failure is no "exception was never retrieved"
