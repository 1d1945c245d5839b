"""Lets a reader wait for what it has written: until a subscription has come to the positions that it names."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Query
from starlette.requests import Request

from headrace import sql
from headrace.errors import HeadraceError
from headrace.handlers.subscription import Subscription
from headrace.http.database import connection
from headrace.http.problems import Problem, unavailable
from headrace.http.runtime_of import runtime_of
from headrace.log.ports import Position, TopicPartition
from headrace.queries.progress import in_time

NOW = "now"
WAIT_SECONDS, MOST_SECONDS = 5.0, 30.0
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.005, 0.1
"""Between two looks at the claims."""
MOST_POSITIONS = 1_000

After = Annotated[
    str | None,
    Query(
        description="Wait until these positions are applied: `topic/partition/offset`, several with commas, as the "
        "answer to a publish names them; or `now`: all that is published or committed until now.",
        max_length=100_000,
        examples=["wallets/2/17"],
    ),
]
Wait = Annotated[float, Query(ge=0, le=MOST_SECONDS, description="Seconds to wait for `after`.")]


async def wait_for(request: Request, subscription: Subscription, after: str | None, seconds: float) -> None:
    """Return when the subscription has applied what is named. Raises: Problem 422, 503 (not in time), 409 (parked)."""
    if after is None:
        return
    until = time.monotonic() + seconds
    if after.strip() == NOW:
        await _outbox_has_left(request, until)
        positions = await _ends(request, subscription)
    else:
        positions = parse_positions(after, subscription)
    columns = [list(column) for column in zip(*positions, strict=True)] or [[], [], []]
    look = FIRST_LOOK_SECONDS
    while True:
        async with connection(request) as postgres:
            row = await postgres.fetchrow(sql.claim.REACHED, subscription.group, *columns)
        if row["behind"] == 0:
            break
        look = await _pause(look, until, subscription.name)
    if row["parked"] is not None and after.strip() != NOW:
        raise Problem(
            409,
            "parked",
            "The event waits",
            f"the event at {row['parked']} waits in the lane of its key, since it or one before it has failed; see "
            f"GET /subscriptions/{subscription.name}/lanes.",
        )


def parse_positions(after: str, subscription: Subscription) -> list[Position]:
    """Return the positions that a text names. Raises: Problem 422."""
    positions = []
    for text in after.split(","):
        topic, _, rest = text.strip().partition("/")
        partition, _, offset = rest.partition("/")
        if not (_is_number(partition, 9) and _is_number(offset, 18)):
            raise _wrong(f"{text[:100]!r} is not a position; write topic/partition/offset, or now.")
        position = Position(unquote(topic), int(partition), int(offset))
        if position.topic not in subscription.topics:
            raise _wrong(
                f"{subscription.name!r} does not read the topic {position.topic!r}; it reads "
                f"{', '.join(subscription.topics)}."
            )
        positions.append(position)
    if len(positions) > MOST_POSITIONS:
        raise _wrong(f"{len(positions):,} positions are named; {MOST_POSITIONS:,} are the most.")
    return positions


async def _ends(request: Request, subscription: Subscription) -> list[Position]:
    """Return the last position of every partition that the subscription reads."""
    log = runtime_of(request).log
    if log is None:
        raise unavailable("the log is not connected yet; ask again.")
    try:
        infos = await in_time(log.topics(subscription.topics))
        partitions = [TopicPartition(each.topic, n) for each in infos.values() for n in range(each.partitions)]
        bounds = await in_time(log.bounds(partitions))
        return [Position(*each, bounds[each].end - 1) for each in partitions if bounds[each].end > bounds[each].begin]
    except (HeadraceError, TimeoutError) as error:
        raise unavailable(f"the log does not say where it ends ({error}); ask again.") from error


async def _outbox_has_left(request: Request, until: float) -> None:
    """Return when the log has what the outbox holds now."""
    service = runtime_of(request).registry.service
    async with connection(request) as postgres:
        last = await postgres.fetchval(sql.outbox.LAST_NUMBER, service)
    look = FIRST_LOOK_SECONDS
    while last:
        async with connection(request) as postgres:
            if not await postgres.fetchval(sql.outbox.WAITS_UP_TO, service, last):
                return
        look = await _pause(look, until, "the outbox")


async def _pause(look: float, until: float, what: str) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise unavailable(f"{what} has not come to `after` in time; ask again, or wait longer with wait=.", 1)
    await asyncio.sleep(min(look, left))
    return min(2 * look, LONGEST_LOOK_SECONDS)


def _is_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits


def _wrong(detail: str) -> Problem:
    return Problem(422, "parameters", "The request's parameters are wrong", detail, errors=_errors(detail))


def _errors(detail: str) -> list[dict[str, Any]]:
    return [{"location": "query.after", "message": detail}]
