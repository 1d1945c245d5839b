"""Connections that know PostgreSQL's own types, instead of each asking the server for them."""

from __future__ import annotations

from typing import Any

import asyncpg

_FIRST_ASSIGNED_OID = 10_000
"""Types below it have their numbers from PostgreSQL's source, the same on every server; the others are a database's."""

_known: dict[tuple[int, ...], Any] = {}


class Session(asyncpg.Connection):
    """A connection whose first statements cost what later ones do.

    asyncpg asks the server what an array or a range is when a connection first meets it, with a query that costs the
    server several times a batch's own. What it was told of the types that are the same everywhere is kept for the
    process. If asyncpg comes to ask in another way, this changes nothing (test_types_are_asked_for_once_in_a_process).
    """

    is_own = False
    """True if nobody but the platform has used the connection since it was lent: it leaves nothing in the session."""

    def keep_own(self) -> None:
        """Note that the platform's own statements are run, which leave nothing behind."""
        self.is_own = True

    def hand_over(self) -> None:
        """Note that a team's code gets the connection: it may leave settings, locks and cursors in the session."""
        self.is_own = False

    async def forget(self) -> None:
        """Make the session as it was, when the pool takes the connection back.

        After the platform's own statements there is nothing to do: asyncpg's own way to do it takes as long as one of
        the statements of a batch, twice in each batch.
        """
        if not self.is_own:
            await self.execute(self.get_reset_query())
        self.is_own = False

    async def _introspect_types(self, typeoids: Any, timeout: Any) -> Any:
        asked = tuple(sorted(typeoids))
        if asked[-1] >= _FIRST_ASSIGNED_OID:
            return await super()._introspect_types(typeoids, timeout)  # type: ignore[misc]
        if asked not in _known:
            _known[asked] = await super()._introspect_types(typeoids, timeout)  # type: ignore[misc]
        return _known[asked]
