"""States for small batches are read together: while one read is under way, the next one gathers.

A read of its own costs a batch a connection and a round trip, whatever it asks for. With a few events in each batch
that is a tenth of the worker's time, and it decides how late an event is. So batches of a process that ask for the same
state while it is being read share the next statement, and each gets the rows of its own keys:
```
batch of partition 0 ──read──┤
batch of partition 3   ├─ waits ─┐
batch of partition 4    ├─ waits ─┴──one read──┤
```
If Postgres refuses the keys of one batch, each of them reads its own, so that the others do not hear of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from headrace.database.pool import Connection
from headrace.errors import StateUnavailableError
from headrace.state.cache import StoredState
from headrace.state.store import read

MOST_KEYS = 64
"""Of a batch that reads with others: a larger one would hold them up."""


class Place(NamedTuple):
    """A state: the group of its subscription, and its class's name in lower case."""

    group: str
    state: str


class Member(NamedTuple):
    """The keys of one batch, and what hears of their rows; of None, if it has to read them by itself."""

    keys: Sequence[str]
    found: asyncio.Future[dict[str, StoredState] | None]


class GroupRead:
    """Reads states for the batches of one process; `connect` lends a connection."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Connection]]) -> None:
        self._connect = connect
        self._waiting: dict[Place, list[Member]] = {}
        """Of each state that is being read, those who wait for the next read."""
        self._tasks: dict[Place, asyncio.Task[None]] = {}

    async def read(self, group: str, state: str, keys: Sequence[str]) -> list[StoredState]:
        """Return what Postgres holds for each of the keys, read after this call.

        Cancel: safe; others go on. Raises: StateError.
        """
        place = Place(group, state)
        if len(keys) > MOST_KEYS:
            return await self._read(place, keys)
        if place in self._waiting:
            known = await self._read_with_others(place, keys)
            return await self._read(place, keys) if known is None else [known[key] for key in keys]
        self._waiting[place] = []
        try:
            return await self._read(place, keys)
        finally:
            self._go_on(place)

    async def _read(self, place: Place, keys: Sequence[str]) -> list[StoredState]:
        async with self._connect() as connection:
            return await read(connection, *place, keys)

    async def _read_with_others(self, place: Place, keys: Sequence[str]) -> dict[str, StoredState] | None:
        found: asyncio.Future[dict[str, StoredState] | None] = asyncio.get_running_loop().create_future()
        self._waiting[place].append(Member(keys, found))
        return await found

    def _go_on(self, place: Place) -> None:
        """Begin to read for those who wait; if nobody does, the next one reads at once."""
        if members := self._waiting.pop(place):
            self._waiting[place] = []
            self._tasks[place] = asyncio.create_task(self._read_for(place, members), name="group read")
        else:
            self._tasks.pop(place, None)

    async def _read_for(self, place: Place, members: Sequence[Member]) -> None:
        known: dict[str, StoredState] | None = None
        failure: StateUnavailableError | None = None
        try:
            known = {row.key: row for row in await self._read(place, [key for each in members for key in each.keys])}
        except StateUnavailableError as error:
            failure = error
        except Exception:  # noqa: S110 - whose keys these are meets it again when it reads them
            pass
        finally:
            for member in members:
                if member.found.done():
                    continue  # nobody waits for it any more
                if failure is not None:
                    member.found.set_exception(failure)
                else:
                    member.found.set_result(known)
            self._go_on(place)
