"""A declared table: its class, its key, its indexes, and the statements on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from headrace.errors import ConfigurationError
from headrace.tables.columns import Column, columns_of

SCHEMA = "projections"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")

Index = str | Sequence[str]
"""A column, or several."""


class TableType:
    """What is known of one table. `name` is its name in the schema `projections`."""

    def __init__(self, model: type[Any], name: str, key: Index, indexes: Iterable[Index], where: str) -> None:
        """Raises: ConfigurationError (the class, the name, a column that is not there)."""
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{where}: the table {name!r} has to have 1 to 48 of a-z, 0-9 and '_', and to start with a letter; "
                "give it another name with table=."
            )
        self.model = model
        self.name = name
        self.columns = columns_of(model, where)
        self.key = (key,) if isinstance(key, str) else tuple(key)
        self.indexes = [(each,) if isinstance(each, str) else tuple(each) for each in indexes]
        for column in {*self.key, *(each for index in self.indexes for each in index)}:
            if column not in self.columns:
                raise ConfigurationError(f"{where}: {column!r} is no field of {model.__name__}.")
        if not self.key:
            raise ConfigurationError(f"{where}: name the field that a row is found by: key=...")
        for column in self.key:
            if self.columns[column].is_json or self.columns[column].is_nullable:
                raise ConfigurationError(f"{where}: the key {column!r} has to be one value, and not None.")

    def row_of(self, stored: Any) -> dict[str, Any]:
        """Return the fields of a row of Postgres."""
        return {name: column.load(stored[name]) for name, column in self.columns.items()}

    # Statements; `table` is a name in the schema, since a rebuilt one has another name until it takes the old one's.
    # All names in them were checked at import (S608).

    def create(self, table: str) -> str:
        """Return what creates the table."""
        columns = ", ".join(column_definition(each) for each in self.columns.values())
        keys = ", ".join(quoted(self.key))
        return f'create table {SCHEMA}.{table} ({columns}, constraint "{table}_pkey" primary key ({keys}))'

    def create_indexes(self, table: str) -> list[str]:
        """Return what creates the indexes that are not there."""
        return [
            f"create index if not exists {_index_name(table, index)} on {SCHEMA}.{table} ({', '.join(quoted(index))})"
            for index in self.indexes
        ]

    def index_names(self, table: str, other: str) -> list[tuple[str, str]]:
        """Return what its indexes are called under one name of the table, and under another one."""
        primary = (f'"{table}_pkey"', f'"{other}_pkey"')
        return [primary, *((_index_name(table, each), _index_name(other, each)) for each in self.indexes)]

    def put(self, table: str) -> str:
        """Return what writes whole rows."""
        names = list(self.columns)
        others = [name for name in quoted(names) if name.strip('"') not in self.key]
        sets = ", ".join(f"{name} = excluded.{name}" for name in others)
        return (
            f"insert into {SCHEMA}.{table} ({', '.join(quoted(names))}) {self._select(names)} "
            f"on conflict ({', '.join(quoted(self.key))}) do {f'update set {sets}' if sets else 'nothing'}"
        )

    def change(self, table: str, changed: Sequence[str]) -> str:
        """Return what writes some columns of rows that are there."""
        names = [*self.key, *changed]
        sets = ", ".join(f"{name} = new.{name}" for name in quoted(changed))
        return f"update {SCHEMA}.{table} as kept set {sets} from ({self._select(names)}) as new where {self._is_same()}"  # noqa: S608

    def add(self, table: str, added: Sequence[str]) -> str:
        """Return what adds to some columns, or writes a new row."""
        names = list(self.columns)
        sets = ", ".join(f"{name} = coalesce(kept.{name}, 0) + excluded.{name}" for name in quoted(added))
        return (
            f"insert into {SCHEMA}.{table} as kept ({', '.join(quoted(names))}) {self._select(names)} "
            f"on conflict ({', '.join(quoted(self.key))}) do update set {sets}"
        )

    def delete(self, table: str) -> str:
        """Return what deletes rows."""
        return f"delete from {SCHEMA}.{table} as kept using ({self._select(self.key)}) as new where {self._is_same()}"  # noqa: S608

    def _select(self, names: Sequence[str]) -> str:
        """Return a select of rows that are passed as one array for each column, in the order of the keys."""
        columns = [self.columns[name] for name in names]
        arrays = ", ".join(f"${place}::{each.parameter}[]" for place, each in enumerate(columns, 1))
        values = ", ".join(f'new."{each.name}"{"::jsonb" if each.is_json else ""}' for each in columns)
        keys = ", ".join(f'new."{name}"' for name in self.key)
        return f"select {values} from unnest({arrays}) as new ({', '.join(quoted(names))}) order by {keys}"  # noqa: S608

    def _is_same(self) -> str:
        return " and ".join(f"kept.{name} = new.{name}" for name in quoted(self.key))


def column_definition(column: Column) -> str:
    """Return what a column is, in a `create table`."""
    return f'"{column.name}" {column.type}{"" if column.is_nullable else " not null"}'


def quoted(names: Iterable[str]) -> list[str]:
    """Return the names as Postgres takes them, whatever its keywords are."""
    return [f'"{name}"' for name in names]


def _index_name(table: str, index: Sequence[str]) -> str:
    return f'"{"_".join([table, *index])[:59]}_idx"'
