"""Stored states whose class is gone: it was removed, or renamed, which makes another state of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from headrace.database.pool import Connection
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.state")

STORED = """
with recursive stored as (
    (select state from headrace.state where subscription = $1 order by state limit 1)
    union all
    select (select state from headrace.state where subscription = $1 and state > stored.state order by state limit 1)
    from stored where stored.state is not null
)
select state from stored where state is not null
"""
"""The states of a subscription: one look into the primary key for each, however many keys there are."""


class Owner(Protocol):
    """A subscription, as far as its states are concerned."""

    @property
    def name(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def states(self) -> Mapping[str, object]: ...


async def warn_of_orphans(connection: Connection, subscriptions: Iterable[Owner]) -> None:
    """Name in the log every stored state that no handler of its subscription asks for."""
    for subscription in subscriptions:
        for row in await connection.fetch(STORED, subscription.group):
            if row["state"] not in subscription.states:
                logger.warning(
                    "stored state without a class",
                    subscription=subscription.name,
                    state=row["state"],
                    reason="no handler asks for it; if its class was renamed, give the class its old name back, else "
                    "delete the rows from headrace.state.",
                )
