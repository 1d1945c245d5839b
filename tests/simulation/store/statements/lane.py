"""Queries on lanes and parked events."""

from __future__ import annotations

from functools import partial
from typing import Any

import asyncpg

from headrace import sql
from headrace.errors import SequenceGapError
from tests.simulation.store.statements.model import Work, reads, writes
from tests.simulation.store.tables import Row, Values
from tests.simulation.store.transaction import Transaction

PARKED_COLUMNS = [
    "key",
    "number",
    "topic",
    "offset",
    "timestamp",
    "record_key",
    "value",
    "headers",
    "source",
    "event_id",
    "type",
    "reason",
]


def _parked(t: Transaction, group: str, partition: int, key: bytes) -> list[Values]:
    rows = [row for row in t.group("parked", group, partition) if row["key"] == key]
    return sorted(rows, key=lambda row: int(row["number"]))


@reads(sql.lane.LOAD)
def load(t: Transaction, group: str, partition: int) -> list[Row]:
    rows = []
    for lane in t.group("lane", group, partition):
        events = _parked(t, group, partition, lane["key"])
        if not events:
            continue
        rows.append(
            Row(
                key=lane["key"],
                attempts=lane["attempts"],
                is_running=lane["is_running"],
                due=lane["due_at"],
                error=lane["error"],
                error_type=lane["error_type"],
                handler=lane["handler"],
                since=lane["parked_at"],
                events=len(events),
                head=events[0]["number"],
                number=events[-1]["number"],
                arrival=max(int(event["number"]) & 524287 for event in events),
            )
        )
    return rows


@reads(sql.lane.DUE_TIMES)
def due_times(t: Transaction, group: str, partition: int) -> list[Row]:
    return [Row(key=lane["key"], due=lane["due_at"]) for lane in t.group("lane", group, partition)]


@writes(sql.lane.OPEN, "INSERT 0")
def open_(
    t: Transaction,
    group: str,
    partition: int,
    keys: list[bytes],
    attempts: list[int],
    due: list[float],
    errors: list[str],
    error_types: list[str | None],
    handlers: list[str | None],
) -> Work:
    for key, count, at, error, error_type, handler in zip(
        keys, attempts, due, errors, error_types, handlers, strict=True
    ):
        place = (group, partition, key)
        yield ("lane", place)
        kept = t.get("lane", place)
        row = kept or {"subscription": group, "partition": partition, "key": key, "parked_at": t.now()}
        known = (kept["error_type"], kept["error"]) if kept is not None else None
        is_same_gap = error_type == SequenceGapError.__name__ and known == (error_type, error)
        changed = {
            "attempts": count,
            "due_at": min(row["due_at"], at) if is_same_gap else at,
            "error": error,
            "error_type": error_type,
            "handler": handler,
            "is_running": False,
        }
        t.put("lane", place, row | changed)
    return len(keys)


@writes(sql.lane.COUNT_RUN, "UPDATE")
def count_run(t: Transaction, group: str, partition: int, keys: list[bytes], attempts: list[int]) -> Work:
    changed = 0
    for key, count in zip(keys, attempts, strict=True):
        counted = {"attempts": count, "is_running": True}
        row = yield from t.change("lane", (group, partition, key), lambda row: True, partial(_replaced, counted))
        changed += row is not None
    return changed


@writes(sql.lane.NOTE_DEATH, "UPDATE")
def note_death(t: Transaction, group: str, partition: int, error: str) -> Work:
    changed = 0
    ended = partial(_replaced, {"is_running": False, "error": error})
    for key in t.keys("lane", group, partition, where=_is_running):
        row = yield from t.change("lane", key, _is_running, ended)
        changed += row is not None
    return changed


def _is_running(row: Values) -> bool:
    return bool(row["is_running"])


@writes(sql.lane.CLOSE, "DELETE")
def close(t: Transaction, group: str, partition: int, keys: list[bytes]) -> Work:
    return (yield from _delete(t, "lane", [(group, partition, key) for key in keys]))


@writes(sql.lane.PARK, "INSERT 0")
def park(t: Transaction, group: str, partition: int, *columns: list[Any]) -> Work:
    rows = list(zip(*columns, strict=True))
    for values in rows:
        row = dict(zip(PARKED_COLUMNS, values, strict=True))
        key = (group, partition, row["key"], row["number"])
        yield ("parked", key)
        if t.get("parked", key) is not None:
            raise asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
        t.put("parked", key, {"subscription": group, "partition": partition, "parked_at": t.now()} | row)
    return len(rows)


@reads(sql.lane.FIRST_EVENTS)
def first_events(
    t: Transaction, group: str, partition: int, keys: list[bytes], most: list[int], max_bytes: int
) -> list[Row]:
    names = ("number", "topic", "offset", "timestamp", "record_key", "value", "headers")
    found: list[Row] = []
    size = 0
    for key, events in zip(keys, most, strict=True):
        for row in _parked(t, group, partition, key)[:events]:
            size += len(row["value"] or b"") + len(row["headers"])
            if found and size > max_bytes:
                return found
            found.append(Row(key=key, **{name: row[name] for name in names}))
    return found


@writes(sql.lane.UNPARK, "DELETE")
def unpark(t: Transaction, group: str, partition: int, keys: list[bytes], numbers: list[int]) -> Work:
    places = [(group, partition, key, number) for key, number in zip(keys, numbers, strict=True)]
    return (yield from _delete(t, "parked", places))


def _replaced(by: Values, row: Values) -> Values:
    return by


def _delete(t: Transaction, table: str, places: list[tuple[Any, ...]]) -> Work:
    gone = 0
    for place in places:
        if t.get(table, place) is None:
            continue
        yield (table, place)
        if t.get(table, place) is not None:
            t.put(table, place, None)
            gone += 1
    return gone
