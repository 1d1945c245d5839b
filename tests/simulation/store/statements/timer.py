"""Queries on timers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from headrace import sql
from tests.simulation.store.statements.model import Work, reads, writes
from tests.simulation.store.tables import Key, Row, Values
from tests.simulation.store.transaction import Transaction


@writes(sql.timer.SET, "SELECT")
def set_(
    t: Transaction,
    group: str,
    partition: int,
    types: list[str],
    keys: list[bytes],
    names: list[str],
    after: list[float | None],
    at: list[datetime | None],
    topics: list[str],
    values: list[bytes],
    headers: list[bytes],
    crons: list[str | None],
) -> Work:
    due: list[float] = []
    for type_, key, name, seconds, moment, topic, value, header, cron in zip(
        types, keys, names, after, at, topics, values, headers, crons, strict=True
    ):
        place = (group, type_, key, name)
        yield ("timer", place)
        row: Values = {
            "subscription": group,
            "partition": partition,
            "type": type_,
            "key": key,
            "name": name,
            "due_at": moment.timestamp() if moment is not None else t.clock() + (seconds or 0.0),
            "topic": topic,
            "value": value,
            "headers": header,
            "cron": cron,
        }
        t.put("timer", place, row)
        due.append(row["due_at"])
    return [Row(seconds=min(due) - t.clock() if due else None)]


@writes(sql.timer.CANCEL, "DELETE")
def cancel(t: Transaction, group: str, types: list[str], keys: list[bytes], names: list[str | None]) -> Work:
    gone = 0
    for type_, key, name in zip(types, keys, names, strict=True):

        def is_meant(row: Values, meant: Any = (group, type_, key), name: str | None = name) -> bool:
            place = (row["subscription"], row["type"], row["key"])
            return bool(place == meant and row["cron"] is None and name in (None, row["name"]))

        for place in t.keys("timer", where=is_meant):
            gone += yield from _take(t, place)
    return gone


def _take(t: Transaction, place: Key) -> Work:
    yield ("timer", place)
    if t.get("timer", place) is None:
        return 0
    t.put("timer", place, None)
    return 1


@writes(sql.timer.TAKE_DUE, "SELECT")
def take_due(t: Transaction, group: str, numbers: list[int], most: int, most_bytes: int) -> Work:
    fired = []
    now = t.clock()
    for number in numbers:
        due = [row for row in _owned(t, group, [number]) if row["due_at"] <= now]
        due.sort(key=lambda row: float(row["due_at"]))
        locked, size = [], 0
        for row in due[:most]:
            place = (group, row["type"], row["key"], row["name"])
            yield ("timer", place)
            kept = t.get("timer", place)
            if kept is not None and kept["due_at"] <= now and kept["partition"] == number:
                locked.append((place, kept))
        for count, (place, kept) in enumerate(locked):
            size += len(kept["value"]) + len(kept["headers"])
            if count and size > most_bytes:
                break
            t.put("timer", place, None)
            fired.append(kept)
    fired.sort(key=lambda row: float(row["due_at"]))
    return [
        Row(
            topic=row["topic"],
            key=row["key"],
            value=row["value"],
            headers=row["headers"],
            name=row["name"],
            cron=row["cron"],
            now=datetime.fromtimestamp(t.clock(), UTC),
            late_seconds=t.clock() - row["due_at"],
        )
        for row in fired
    ]


@reads(sql.timer.SECONDS_TO_NEXT)
def seconds_to_next(t: Transaction, group: str, numbers: list[int]) -> list[Row]:
    due = [row["due_at"] for row in _owned(t, group, numbers)]
    return [Row(seconds=min(due) - t.clock() if due else None)]


@reads(sql.timer.COUNT_DUE)
def count_due(t: Transaction, group: str, numbers: list[int]) -> list[Row]:
    return [Row(count=sum(row["due_at"] <= t.clock() for row in _owned(t, group, numbers)))]


@reads(sql.timer.COUNT)
def count(t: Transaction, group: str, numbers: list[int]) -> list[Row]:
    return [Row(count=len(_owned(t, group, numbers)))]


def _owned(t: Transaction, group: str, numbers: list[int]) -> list[Values]:
    return [row for row in t.group("timer") if row["subscription"] == group and row["partition"] in numbers]
