"""Queries on states."""

from __future__ import annotations

from datetime import timedelta

from headrace import sql
from tests.simulation.store.statements.model import Work, reads, writes
from tests.simulation.store.tables import Row, Values
from tests.simulation.store.transaction import Transaction


@reads(sql.state.READ)
def read(t: Transaction, group: str, state: str, keys: list[str]) -> list[Row]:
    found = [t.get("state", (group, state, key)) for key in dict.fromkeys(keys)]
    names = ("key", "version", "data", "class_version")
    return [Row(**{name: row[name] for name in names}, left_seconds=_left(t, row)) for row in found if row is not None]


def _left(t: Transaction, row: Values) -> float | None:
    return None if row["expires_at"] is None else row["expires_at"] - t.clock()


@writes(sql.state.WRITE, "INSERT 0")
def write(
    t: Transaction,
    group: str,
    state: str,
    partition: int,
    keys: str,
    versions: str,
    data: str,
    separator: str,
    ttl: timedelta | None,
    class_version: int,
) -> Work:
    written = 0
    columns = keys.split(separator)[1:], map(int, versions.split(",")), data.split(separator)[1:]
    for key, version, text in zip(*columns, strict=True):
        place = (group, state, key)
        yield ("state", place)
        kept = t.get("state", place)
        if kept is not None and kept["version"] != version - 1:
            continue
        row = {
            "subscription": group,
            "state": state,
            "key": key,
            "partition": partition,
            "version": version,
            "data": text,
            "class_version": class_version,
            "expires_at": None if ttl is None else t.clock() + ttl.total_seconds(),
        }
        t.put("state", place, row)
        written += 1
    return written
