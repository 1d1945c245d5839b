"""What is committed: rows by primary key, grouped by the columns that queries look them up by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Key = tuple[Any, ...]
Values = dict[str, Any]

GROUPED_BY = {
    "claim": 0,
    "ledger": 3,
    "state": 2,
    "lane": 2,
    "parked": 2,
    "dead_letter": 0,
    "timer": 0,
    "effect": 1,
    "step": 1,
    "subscription": 0,
    "outage": 0,
    "journal": 0,
}
"""For each table, how many columns of its primary key its rows are grouped by."""


class Row:
    """A row of an answer, as asyncpg gives it: by name, by number, or taken apart."""

    __slots__ = ("_values",)

    def __init__(self, **values: Any) -> None:
        self._values = values

    def __getitem__(self, name: str | int) -> Any:
        return self._values[name] if isinstance(name, str) else list(self._values.values())[name]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Row({self._values})"

    def items(self) -> Any:
        return self._values.items()


class Tables:
    """All tables. Rows are never changed, but replaced; so a copy costs little."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[Key, dict[Key, Values]]] = {name: {} for name in GROUPED_BY}

    def get(self, table: str, key: Key) -> Values | None:
        return self.rows[table].get(key[: GROUPED_BY[table]], {}).get(key)

    def group(self, table: str, prefix: Key) -> dict[Key, Values]:
        return self.rows[table].get(prefix, {})

    def all(self, table: str) -> list[Values]:
        return [row for group in self.rows[table].values() for row in group.values()]

    def put(self, table: str, key: Key, row: Values | None) -> None:
        group = self.rows[table].setdefault(key[: GROUPED_BY[table]], {})
        if row is None:
            group.pop(key, None)
        else:
            group[key] = row

    def copy(self) -> Tables:
        """Return the tables as they are now, for a restore."""
        copied = Tables()
        copied.rows = {
            name: {prefix: dict(group) for prefix, group in groups.items()} for name, groups in self.rows.items()
        }
        return copied
