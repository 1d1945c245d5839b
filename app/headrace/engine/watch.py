"""What a consumer asks Postgres once a second: is it paused, are there replays, did claims change?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from headrace import sql
from headrace.engine.context import EngineContext
from headrace.engine.worker import Phase, Worker
from headrace.handlers.subscription import Subscription
from headrace.ledger.dead_letters import read_replays
from headrace.log.ports import TopicPartition
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

Places = Mapping[tuple[str, int], tuple[tuple[str | None, str | None], int]]
"""Where claims stand, by topic and partition: in which log, in which topic of that name, and at which next offset."""


class Watch:
    """Looks at the database for one subscription, and tells its workers."""

    def __init__(self, context: EngineContext, subscription: Subscription, workers: Mapping[int, Worker]) -> None:
        self._context = context
        self._subscription = subscription
        self._workers = workers
        self.is_paused = True
        """Until Postgres was asked."""
        self._retry_requested_at: datetime | None = None
        self._places: Places = {}
        """The claims of the group as they were at the last look."""

    async def look(self) -> None:
        """Ask Postgres, and pass on what it says. Raises: StateError."""
        group = self._subscription.group
        idle = {number: _held(worker) for number, worker in self._workers.items() if _is_idle(worker)}
        ready = [number for number, worker in self._workers.items() if _takes_replays(worker)]
        async with self._context.connection() as connection:
            asked = await connection.fetchrow(sql.subscription.REQUESTS, group)
            self.is_paused = asked is not None and asked["paused"]
            replays = await read_replays(connection, group, ready) if ready and not self.is_paused else {}
            claims = await connection.fetch(sql.claim.HELD, group, list(idle))
            self._note_places(await connection.fetch(sql.claim.POSITIONS, group))
        retry_requested_at = asked["retry_requested_at"] if asked is not None else None
        is_retry_new = retry_requested_at != self._retry_requested_at
        self._retry_requested_at = retry_requested_at
        self._context.metrics.subscription_paused.labels(subscription=self._subscription.name).set(self.is_paused)
        for number, worker in self._workers.items():
            worker.orders.is_paused = self.is_paused
            worker.orders.reads_due_times |= is_retry_new
            if number in replays and _takes_replays(worker):
                worker.orders.replays = replays[number]
        for row in claims:
            self._compare(row, idle[row["partition"]])

    def _note_places(self, rows: Iterable[Any]) -> None:
        """Let refused partitions be claimed at once if the claims have changed: an operator has accepted a topic."""
        before = self._places
        self._places = {(row["topic"], row["partition"]): (_log_of(row), row["next_offset"]) for row in rows}
        for number, worker in self._workers.items():
            if worker.phase is Phase.REFUSED and _seen_by(number, before) != _seen_by(number, self._places):
                worker.try_again()

    def _compare(self, row: Any, known: Mapping[TopicPartition, Held]) -> None:
        """End the tenure of an idle owner whose claim is another one in the database, before an event tells it so.

        The claim of another owner: what that one has parked or set a timer for is not known here. A claim that went
        back (a backup, a topic that was accepted): likewise.
        """
        number, place = row["partition"], TopicPartition(row["topic"], row["partition"])
        worker, held = self._workers.get(number), known.get(place)
        if worker is None or held is None or not _is_idle(worker) or _held(worker)[place].tokens != held.tokens:
            return
        if row["token"] not in held.tokens:
            worker.orders.is_fenced = True
        elif any(row[name] < getattr(held, name) for name in ("next_offset", "sequence", "emitted_through")):
            logger.warning("the claim went back, claimed again", subscription=self._subscription.name, partition=number)
            worker.orders.claim_again = True


class Held(NamedTuple):
    """A claim as its owner knows it."""

    tokens: tuple[UUID, UUID]
    """That of the claim, and the one that it may be given while its owner looks."""
    next_offset: int
    sequence: int
    emitted_through: int


def _held(worker: Worker) -> dict[TopicPartition, Held]:
    """Return the claims of a worker that serves."""
    assert worker.tenure is not None
    claims = [holding.claim for holding in worker.tenure.holdings.values()]
    return {
        claim.partition: Held(claim.tokens, claim.next_offset, claim.sequence, claim.emitted_through)
        for claim in claims
    }


def _is_idle(worker: Worker) -> bool:
    """True if the worker has nothing in flight: then its claim in the database is the one that it knows."""
    tenure = worker.tenure
    return worker.phase is Phase.RUNNING and tenure is not None and tenure.pending_since_ms is None


def _log_of(row: Any) -> tuple[str | None, str | None]:
    return row["log_id"], row["topic_id"]


def _seen_by(number: int, places: Places) -> set[object]:
    """Return what a worker may be refused for: the known partitions, their logs, and its own next offsets."""
    return {(place, log, offset if place[1] == number else 0) for place, (log, offset) in places.items()}


def _takes_replays(worker: Worker) -> bool:
    return worker.phase is Phase.RUNNING and not worker.orders.replays
