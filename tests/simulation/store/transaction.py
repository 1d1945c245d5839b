"""One transaction: what it has written and nobody else sees yet, and the rows that it has locked."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from tests.simulation.store.tables import GROUPED_BY, Key, Values

if TYPE_CHECKING:
    from tests.simulation.store.server import Server, Session

Place = tuple[str, Key]
"""(table, primary key)."""
_NOTHING: Any = object()


class Transaction:
    """What statements work on. A statement is a generator that yields the places that it wants to lock."""

    def __init__(self, server: Server, session: Session) -> None:
        self.server = server
        self.session = session
        self.began_at = server.now()
        self.written: dict[Place, Values | None] = {}
        self.locked: set[Place] = set()
        self.is_aborted = False
        self.savepoints: list[int] = []
        self._undo: list[tuple[Place, Any]] = []

    # What statements read

    def get(self, table: str, key: Key) -> Values | None:
        """Return the row as this transaction sees it now."""
        place = (table, key)
        if place in self.written:
            return self.written[place]
        return self.server.tables.get(table, key)

    def group(self, table: str, *prefix: Any) -> list[Values]:
        """Return the rows of a group, in the order in which they were first written."""
        committed = self.server.tables.group(table, prefix)
        own = [(key, row) for (name, key), row in self.written.items() if name == table]
        if not own:
            return list(committed.values())
        rows: dict[Key, Values | None] = {**committed}
        rows.update((key, row) for key, row in own if key[: GROUPED_BY[table]] == prefix)
        return [row for row in rows.values() if row is not None]

    def keys(self, table: str, *prefix: Any, where: Callable[[Values], bool]) -> list[Key]:
        """Return the primary keys of the rows of a group that are wanted."""
        places = dict.fromkeys(self.server.tables.group(table, prefix))
        places.update(dict.fromkeys(key for name, key in self.written if name == table))
        found = ((key, self.get(table, key)) for key in places)
        return [key for key, row in found if row is not None and where(row)]

    # What statements write

    def put(self, table: str, key: Key, row: Values | None) -> None:
        """Write a row, or remove it. It has to be locked."""
        place = (table, key)
        self._undo.append((place, self.written.get(place, _NOTHING)))
        self.written[place] = row

    def change(
        self, table: str, key: Key, where: Callable[[Values], bool], change: Callable[[Values], Values]
    ) -> Generator[Place, None, Values | None]:
        """Lock the row if it is what is wanted, and change it if it still is; return what it is then."""
        row = self.get(table, key)
        if row is None or not where(row):
            return None
        yield (table, key)
        row = self.get(table, key)
        if row is None or not where(row):
            return None
        row = row | change(row)
        self.put(table, key, row)
        return row

    def now(self) -> float:
        """Return Postgres' now(): when the transaction began."""
        return self.began_at

    def clock(self) -> float:
        """Return Postgres' clock_timestamp()."""
        return self.server.now()

    # Savepoints

    def savepoint(self) -> None:
        self.savepoints.append(len(self._undo))

    def release_savepoint(self) -> None:
        self.savepoints.pop()

    def rollback_to_savepoint(self) -> None:
        length = self.savepoints.pop()
        while len(self._undo) > length:
            place, before = self._undo.pop()
            if before is _NOTHING:
                del self.written[place]
            else:
                self.written[place] = before
        self.is_aborted = False
