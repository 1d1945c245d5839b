"""What handlers do to the rows of a table: collected event by event, written in a few statements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from headrace.database.pool import Connection
from headrace.errors import ConfigurationError
from headrace.tables.table import TableType

Kind = Literal["put", "change", "add", "delete"]
Key = tuple[Any, ...]


class Write(NamedTuple):
    """One change of one row; values are arguments of a statement, by column."""

    kind: Kind
    key: Key
    values: dict[str, Any]
    """put: all columns; change, add: those that change; delete: none."""
    row: dict[str, Any]
    """add: the whole row as it is if it is new."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Which columns it writes, so that changes of the same ones are one statement."""
        return tuple(sorted(self.values)) if self.kind in ("change", "add") else ()


class TableWriter:
    """The `Table` of one batch. `cause` tells whose event is being handled, so that it can be undone alone."""

    def __init__(self, table: TableType, cause: Callable[[], object]) -> None:
        self.table = table
        self._cause = cause
        self.writes: list[tuple[object, Write]] = []

    def put(self, row: object) -> None:
        """Write a whole row, new or not."""
        if not isinstance(row, self.table.model):
            raise ConfigurationError(f"put() takes a {self.table.model.__name__}, not a {type(row).__name__}.")
        values = {name: column.dump(getattr(row, name)) for name, column in self.table.columns.items()}
        self._note(Write("put", tuple(values[name] for name in self.table.key), values, {}))

    def change(self, *key: Any, **columns: Any) -> None:
        """Write some columns of a row; nothing happens if there is none."""
        self._note(Write("change", self._key(key), self._values(columns, "change"), {}))

    def add(self, *key: Any, **numbers: Any) -> None:
        """Add to some columns of a row; if there is none, it begins with the defaults of its class."""
        checked, amounts = self._key(key), self._values(numbers, "add")
        for name in amounts:
            if not self.table.columns[name].is_number:
                raise ConfigurationError(f"add() takes numbers, and {name!r} is {self.table.columns[name].type}.")
        new = self.table.model(**dict(zip(self.table.key, key, strict=True)), **numbers)
        row = {name: column.dump(getattr(new, name)) for name, column in self.table.columns.items()}
        self._note(Write("add", checked, amounts, row))

    def delete(self, *key: Any) -> None:
        """Delete a row; nothing happens if there is none."""
        self._note(Write("delete", self._key(key), {}, {}))

    def undo(self, cause: object) -> None:
        """Take back what the handler of an event did."""
        while self.writes and self.writes[-1][0] is cause:
            self.writes.pop()

    async def write(self, connection: Connection, table: str | None = None) -> None:
        """Write everything, in the connection's transaction, into the table or one that is being built."""
        for wave in waves(write for _, write in self.writes):
            for (kind, columns), group in groupby(sorted(wave, key=_group), key=_group):
                statement, names = _statement(self.table, table or self.table.name, kind, columns)
                rows = [_row(self.table, each) for each in group]
                await connection.execute(statement, *([row[name] for row in rows] for name in names))
        self.writes.clear()

    def apply(self, rows: dict[Key, dict[str, Any]]) -> None:
        """Do to rows in memory, by key, what `write` does to those of Postgres."""
        for _, write in self.writes:
            kept = rows.get(write.key)
            match write.kind:
                case "put":
                    rows[write.key] = dict(write.values)
                case "delete":
                    rows.pop(write.key, None)
                case "change" if kept is not None:
                    kept.update(write.values)
                case "add":
                    rows[write.key] = _added(kept, write.values) if kept is not None else _row(self.table, write)
        self.writes.clear()

    def _note(self, write: Write) -> None:
        self.writes.append((self._cause(), write))

    def _key(self, key: tuple[Any, ...]) -> Key:
        names = self.table.key
        if len(key) != len(names):
            raise ConfigurationError(f"a row of {self.table.name} is named by {', '.join(names)}: give {len(names)}.")
        columns = self.table.columns
        return tuple(columns[name].dump(columns[name].checked(value)) for name, value in zip(names, key, strict=True))

    def _values(self, columns: dict[str, Any], verb: str) -> dict[str, Any]:
        known = self.table.columns
        for name in columns:
            if name not in known or name in self.table.key:
                others = ", ".join(each for each in known if each not in self.table.key)
                raise ConfigurationError(f"{verb}(): {name!r} cannot be written; the columns are {others}.")
        if not columns:
            raise ConfigurationError(f"{verb}(): name a column, such as {verb}(key, column=value).")
        return {name: known[name].dump(known[name].checked(value)) for name, value in columns.items()}


def waves(writes: Iterable[Write]) -> list[list[Write]]:
    """Return the changes in waves: each has one change of a key at most, and waves are written one after another."""
    found: list[dict[Key, Write]] = []
    last: dict[Key, int] = {}
    for write in writes:
        place = last.get(write.key, -1)
        if place >= 0 and (merged := merge(found[place][write.key], write)) is not None:
            found[place][write.key] = merged
            continue
        if place + 1 == len(found):
            found.append({})
        found[place + 1][write.key] = write
        last[write.key] = place + 1
    return [list(wave.values()) for wave in found]


def merge(first: Write, then: Write) -> Write | None:
    """Return the one change that does what the two do; None if there is none."""
    match first.kind, then.kind:
        case _, "put" | "delete":
            return then
        case "put", "change":
            return first._replace(values={**first.values, **then.values})
        case "put", "add":
            return first._replace(values=_added(first.values, then.values))
        case "delete", "change":
            return first
        case "delete", "add":
            return Write("put", then.key, then.row, {})
        case "change", "change":
            return first._replace(values={**first.values, **then.values})
        case "add", "add" if first.columns == then.columns:
            return first._replace(values=_added(first.values, then.values), row=_added(first.row, then.values))
        case _:
            return None


def _added(values: dict[str, Any], amounts: dict[str, Any]) -> dict[str, Any]:
    return {**values, **{name: (values.get(name) or 0) + amount for name, amount in amounts.items()}}


_group = attrgetter("kind", "columns")


def _statement(table: TableType, name: str, kind: Kind, columns: Sequence[str]) -> tuple[str, list[str]]:
    """Return the statement of a kind of change, and the columns that it takes."""
    match kind:
        case "put":
            return table.put(name), list(table.columns)
        case "change":
            return table.change(name, columns), [*table.key, *columns]
        case "add":
            return table.add(name, columns), list(table.columns)
        case "delete":
            return table.delete(name), list(table.key)


def _row(table: TableType, write: Write) -> dict[str, Any]:
    key = dict(zip(table.key, write.key, strict=True))
    return {**write.row, **write.values, **key}
