"""Tells how far subscriptions are: claims and lanes from Postgres, the log's end from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from headrace import sql
from headrace.database.pool import Connection
from headrace.errors import HeadraceError, SequenceGapError
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Bounds, TopicPartition
from headrace.order.declared import shown_order

if TYPE_CHECKING:
    from headrace.log.ports import Log
    from headrace.settings import EngineSettings

LOG_SECONDS = 5.0
"""An answer waits at most this long for the log; without the log the lag is null, and the rest is told."""

ResultT = TypeVar("ResultT")


async def read_progress(
    postgres: Connection, log: Log | None, subscriptions: Sequence[Subscription], engine: EngineSettings
) -> list[dict[str, Any]]:
    """Return what is known of each subscription, in the order given. A log that is away costs the lag only."""
    groups = [subscription.group for subscription in subscriptions]
    claims = {_place(row): row for row in await postgres.fetch(sql.claim.PROGRESS, groups)}
    parked = {_place(row): row for row in await postgres.fetch(sql.lane.PARKED_BY_PARTITION, groups)}
    gaps = await postgres.fetch(sql.lane.GAPS, groups, SequenceGapError.__name__)
    gap_keys = {row["subscription"]: row["keys"] for row in gaps}
    paused = {row["subscription"] for row in await postgres.fetch(sql.subscription.PAUSED_AMONG, groups)}
    rewinds = {
        row["subscription"]: {name: row[name] for name in ("by", "began_at", "running")}
        for row in await postgres.fetch(sql.subscription.REWINDS)
    }
    outages: dict[str, list[dict[str, Any]]] = {}
    for row in await postgres.fetch(sql.outage.AMONG, groups):
        shown = {name: row[name] for name in ("handler", "error", "since", "owner")}
        outages.setdefault(row["subscription"], []).append(shown)
    every_topic = sorted({topic for subscription in subscriptions for topic in subscription.topics})
    bounds, reason = await _bounds(log, every_topic)
    answer = []
    for subscription in subscriptions:
        group, topics = subscription.group, subscription.topics
        known = {place for place in (*claims, *parked) if place[0] == group}
        known |= {(group, partition.topic, partition.partition) for partition in bounds if partition.topic in topics}
        partitions = [
            _partition(place, claims.get(place), parked.get(place), bounds.get(TopicPartition(*place[1:])), engine)
            for place in sorted(known)
        ]
        lags = [partition["lag"] for partition in partitions]
        answer.append(
            {
                "name": subscription.name,
                "topics": topics,
                "order": shown_order(subscription.order),
                "paused": group in paused,
                "rewind": rewinds.get(group),
                "outages": outages.get(group, []),
                "lag": sum(lags) if None not in lags else None,
                "lag_unknown": reason,
                "parked_keys": sum(partition["parked_keys"] for partition in partitions),
                "parked_events": sum(partition["parked_events"] for partition in partitions),
                "gap_keys": gap_keys.get(group, 0),
                "partitions": partitions,
            }
        )
    return answer


def _place(row: Any) -> tuple[str, str, int]:
    return row["subscription"], row["topic"], row["partition"]


def _partition(
    place: tuple[str, str, int], claim: Any, parked: Any, bounds: Bounds | None, engine: EngineSettings
) -> dict[str, Any]:
    keys, events = (parked["keys"], parked["events"]) if parked is not None else (0, 0)
    next_offset = claim["next_offset"] if claim is not None else None
    lag = held_back = None
    if bounds is not None:
        # What retention took away is lost, not pending; a partition never claimed has all of its records before it.
        first = max(bounds.begin, next_offset if next_offset is not None else 0)
        lag, held_back = max(0, bounds.high - first), max(0, bounds.high - max(bounds.end, first))
    return {
        "topic": place[1],
        "partition": place[2],
        "owner": claim["owner"] if claim is not None else None,
        "epoch": claim["epoch"] if claim is not None else None,
        "next_offset": next_offset,
        "end_offset": bounds.high if bounds is not None else None,
        "lag": lag,
        "held_back": held_back,
        "parked_keys": keys,
        "parked_events": events,
        "full": keys >= engine.parked_keys or events >= engine.parked_events,
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
    """Return the log's answer. Raises: TimeoutError, while the call continues: a log may not stand a cancellation."""
    return await answer_of(asyncio.ensure_future(work))


async def answer_of(call: asyncio.Future[ResultT]) -> ResultT:
    """Return the answer of a call that the caller keeps. Raises: TimeoutError, while the call continues."""
    call.add_done_callback(_forget)
    done, _ = await asyncio.wait((call,), timeout=LOG_SECONDS)
    if not done:
        raise TimeoutError
    return call.result()


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # asked for, so that asyncio does not report a late failure as one that nobody saw
