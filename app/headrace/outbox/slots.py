"""Which slots of the outbox this process publishes: its fair share, held by advisory locks of one session."""

from __future__ import annotations

import math
import random
from collections.abc import Collection

from headrace import sql
from headrace.database.pool import Connection
from headrace.outbox.rows import SLOTS


class Slots:
    """The slots that one session holds. A new session begins with none."""

    def __init__(self, connection: Connection, service: str) -> None:
        self._connection = connection
        self._service = service
        self.owned: set[int] = set()

    async def join(self) -> None:
        """Become one of the service's relays. Raises: asyncpg's errors, as every method."""
        await self._connection.execute(sql.outbox.JOIN, self._service)

    async def balance(self, busy: Collection[int]) -> set[int]:
        """Take or release slots until the share is fair, but release none that is busy; return those that are new."""
        members = await self._connection.fetchval(sql.outbox.MEMBERS, self._service)
        fair = math.ceil(SLOTS / max(1, members))
        if len(self.owned) > fair:
            await self._release(sorted(self.owned - set(busy))[: len(self.owned) - fair])
        missing = fair - len(self.owned)
        if missing <= 0:
            return set()
        free = [slot for slot in range(SLOTS) if slot not in self.owned]
        random.shuffle(free)
        rows = await self._connection.fetch(sql.outbox.TAKE, self._service, free, missing)
        taken = {row["slot"] for row in rows}
        self.owned |= taken
        return taken

    async def _release(self, slots: list[int]) -> None:
        self.owned -= set(slots)
        await self._connection.execute(sql.outbox.RELEASE, self._service, slots)
