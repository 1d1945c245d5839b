"""Where `headrace dead-letters` finds them: in the database itself, or behind the HTTP API of a deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol
from urllib.parse import quote
from uuid import UUID

import msgspec

from headrace.cli.api import PAGE, Api
from headrace.database.pool import Pool
from headrace.dead_letters.decisions import Decision, Filter, Place, Refused, decide, find, read, unknown
from headrace.dead_letters.shown import record, summary
from headrace.errors import ConfigurationError

DeadLetter = dict[str, Any]
"""A dead letter as `GET /dead-letters` shows it; with `record_key`, `value` and `headers` if it was read alone."""


class Source(Protocol):
    """Finds and decides dead letters, wherever they are."""

    def find(self, subscription: str | None, reason: str | None, *, is_open: bool) -> AsyncIterator[DeadLetter]:
        """Yield dead letters, the newest first; `is_open` leaves out the decided ones."""
        ...

    async def read(self, identity: UUID) -> DeadLetter:
        """Return one with its record. Raises: ConfigurationError (there is none)."""
        ...

    async def decide(self, identity: UUID, decision: Decision) -> str | None:
        """Decide about one; return why not, or None if it is done."""
        ...


class DatabaseSource:
    """Reads and decides in Postgres, for every service there; the owner of the partition acts on a decision.

    A subscription is shown by its group (`shop.wallets`), since the database holds those of several services.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, subscription: str | None, reason: str | None, *, is_open: bool) -> AsyncIterator[DeadLetter]:
        """Yield them page by page, so that not all are in memory at once."""
        wanted = Filter(subscription=subscription, reason=reason, is_open=is_open or None)
        after: Place | None = None
        while True:
            async with self._pool.acquire() as connection:
                rows = await find(connection, wanted, after, PAGE)
            for row in rows:
                yield _plain(summary(row, row["subscription"]))
            if len(rows) < PAGE:
                return
            after = Place(rows[-1]["created_at"], rows[-1]["id"])

    async def read(self, identity: UUID) -> DeadLetter:
        """Return one with its record."""
        async with self._pool.acquire() as connection:
            row = await read(connection, identity)
        if row is None:
            raise ConfigurationError(unknown(identity))
        return _plain(summary(row, row["subscription"]) | record(row))

    async def decide(self, identity: UUID, decision: Decision) -> str | None:
        """Decide about one that is open."""
        async with self._pool.acquire() as connection:
            decided = await decide(connection, identity, decision)
        return decided.why if isinstance(decided, Refused) else None


class HttpSource:
    """Asks a running deployment."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def find(self, subscription: str | None, reason: str | None, *, is_open: bool) -> AsyncIterator[DeadLetter]:
        """Yield them page by page."""
        state = "open" if is_open else "all"
        asked: dict[str, object] = {"subscription": subscription, "reason": reason, "limit": PAGE, "state": state}
        while True:
            page = await self._api.ask("GET", "/dead-letters", asked)
            for each in page["dead_letters"]:
                yield each
            if page["next"] is None:
                return
            asked["cursor"] = page["next"]

    async def read(self, identity: UUID) -> DeadLetter:
        """Return one with its record."""
        return await self._api.ask("GET", f"/dead-letters/{identity}")

    async def decide(self, identity: UUID, decision: Decision) -> str | None:
        """Decide about one that is open."""
        answer = await self._api.ask("POST", f"/dead-letters/{identity}/{quote(decision)}", refusals=(404, 409))
        return str(answer["detail"]) if "detail" in answer else None


def _plain(shown: dict[str, Any]) -> DeadLetter:
    """Return what the API's JSON would hold: times and ids as text."""
    return dict(msgspec.to_builtins(shown))
