"""Answers what became of an event: one fate for each subscription that takes its type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from headrace import sql
from headrace.database.pool import Connection
from headrace.errors import HeadraceError
from headrace.explain.fate import Fate
from headrace.explain.log_search import find_pending, with_acceptance
from headrace.explain.search import Asked, find_fates, looked_since
from headrace.handlers.subscription import Subscription
from headrace.log.ports import Log, TopicPartition


async def explain(
    lend: Callable[[], AbstractAsyncContextManager[Connection]],
    log: Log | None,
    subscriptions: Sequence[Subscription],
    asked: Asked,
) -> list[Fate]:
    """Return the fate of the event in each subscription. No connection is held while the log is asked.

    Raises: asyncpg's errors.
    """
    fates: list[Fate] = []
    emitters = [f"/{each.group.replace('.', '/', 1)}" for each in subscriptions]
    for subscription in subscriptions:
        if asked.type is not None and asked.type not in subscription.event_types:
            continue
        async with lend() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            found = await find_fates(connection, subscription, asked, emitters)
            rows = await connection.fetch(sql.claim.POSITIONS, subscription.group) if not found else []
            since = await looked_since(connection, subscription) if not found else None
        if found:
            fates += await with_acceptance(log, found) if log is not None else found
            continue
        claims = {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        pending, doubt = await _pending(log, subscription, claims, asked)
        kept = f" since {since:%Y-%m-%d %H:%M} UTC" if since is not None else ""
        fates.append(
            pending
            or Fate(
                subscription.name,
                "unknown",
                f"not known: it is in no lane, no dead letter and not among the newest ids of the ledger{kept}{doubt}. "
                "It was never accepted, or was skipped as a duplicate, or was applied before that, or has another "
                "source: name it with `source`.",
            )
        )
    return fates


async def _pending(
    log: Log | None, subscription: Subscription, claims: dict[TopicPartition, int], asked: Asked
) -> tuple[Fate | None, str]:
    """Return the fate of an event that waits in the log, and what to say if that could not be found out."""
    if log is None:
        return None, ", and the log is not connected"
    try:
        return await find_pending(log, subscription, claims, asked), ", and not among the next records of the log"
    except HeadraceError as error:
        return None, f", and the log cannot be asked ({error})"
