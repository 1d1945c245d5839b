"""Stored states whose class is gone: it was removed, or renamed, which makes another state of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from headrace import sql
from headrace.database.pool import Connection
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.state")


ADVICE = (
    "no handler asks for it; if its class was renamed, give the class its old name back, else delete the rows from "
    "headrace.state."
)


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
    for subscription, state in await orphans(connection, subscriptions):
        logger.warning("stored state without a class", subscription=subscription, state=state, reason=ADVICE)


async def orphans(connection: Connection, subscriptions: Iterable[Owner]) -> list[tuple[str, str]]:
    """Return (subscription, state) of every stored state that no handler of its subscription asks for."""
    return [
        (each.name, row["state"])
        for each in subscriptions
        for row in await connection.fetch(sql.state.NAMES, each.group)
        if row["state"] not in each.states
    ]
