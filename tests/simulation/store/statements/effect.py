"""Queries on effects, and on the answers of their steps."""

from __future__ import annotations

import math
from typing import Any

from headrace import sql
from tests.simulation.store.statements.model import Work, reads, writes
from tests.simulation.store.tables import Row, Values
from tests.simulation.store.transaction import Transaction

COLUMNS = ("identity", "number", "key", "topic", "offset", "timestamp", "record_key", "value", "headers")
LOADED = ("identity", "number", "topic", "offset", "timestamp", "record_key", "value", "headers", "attempts", "error")


@writes(sql.effect.START, "INSERT 0")
def start(t: Transaction, group: str, number: int, *columns: list[Any]) -> Work:
    started = 0
    for values in zip(*columns, strict=True):
        row = dict(zip(COLUMNS, values, strict=True))
        place = (group, row["identity"])
        yield ("effect", place)
        if t.get("effect", place) is None:
            own = {"subscription": group, "partition": number, "attempts": 0, "due": -math.inf, "error": None}
            t.put("effect", place, row | own)
            started += 1
    return started


@reads(sql.effect.LOAD)
def load(t: Transaction, group: str, number: int) -> list[Row]:
    rows = sorted(_owned(t, group, number), key=_place)
    last = max((row["number"] for row in rows), default=None)
    held: dict[bytes, Any] = {}
    for row in rows:
        if row["due"] == math.inf:
            held.setdefault(row["key"], _place(row))
    loaded = [row for row in rows if row["key"] not in held or _place(row) <= held[row["key"]]]
    return [Row(**_loaded(t, row), last_number=last) for row in loaded]


@reads(sql.effect.LOAD_BEHIND)
def load_behind(
    t: Transaction, group: str, number: int, key: bytes, after: int, identity: bytes, most: int
) -> list[Row]:
    rows = sorted(_owned(t, group, number), key=_place)
    behind = [row for row in rows if row["key"] == key and _place(row) > (after, identity)]
    return [Row(**_loaded(t, row)) for row in behind[:most]]


def _place(row: Values) -> tuple[int, bytes]:
    return int(row["number"]), bytes(row["identity"])


def _loaded(t: Transaction, row: Values) -> dict[str, Any]:
    return {name: row[name] for name in LOADED} | {"due": _due(t, row)}


@writes(sql.effect.COUNT_DEATH, "UPDATE")
def count_death(t: Transaction, group: str, number: int, owner: str) -> Work:
    paused = t.get("subscription", (group,))
    if paused is not None and paused["paused"]:
        return 0
    claims = [row for row in t.group("claim") if (row["subscription"], row["partition"]) == (group, number)]
    if any(row["owner"] == owner for row in claims):
        return 0
    rows = sorted(_owned(t, group, number), key=lambda row: int(row["number"]), reverse=True)
    fronts = {row["key"]: row["identity"] for row in rows}.values()

    def may_run(row: Values) -> bool:
        return row["identity"] in fronts and bool(row["due"] <= t.clock())

    counted = 0
    for place in t.keys("effect", group, where=may_run):
        changed = yield from t.change("effect", place, may_run, lambda row: {"attempts": row["attempts"] + 1})
        counted += changed is not None
    return counted


@writes(sql.effect.END, "DELETE")
def end(t: Transaction, group: str, identities: list[bytes]) -> Work:
    return (yield from _remove(t, "effect", [(group, each) for each in dict.fromkeys(identities)]))


@writes(sql.effect.WAIT, "UPDATE")
def wait(
    t: Transaction, group: str, identities: list[bytes], attempts: list[int], dues: list[float], errors: list[str]
) -> Work:
    waiting = 0
    for identity, tried, due, error in zip(identities, attempts, dues, errors, strict=True):
        failed = {"attempts": tried, "due": due, "error": error}
        changed = yield from t.change("effect", (group, identity), lambda row: True, lambda row: failed)  # noqa: B023
        waiting += changed is not None
    return waiting


@reads(sql.effect.DUE_TIMES)
def due_times(t: Transaction, group: str, number: int) -> list[Row]:
    rows = [row for row in _owned(t, group, number) if row["due"] > -math.inf]
    return [Row(identity=row["identity"], due=_due(t, row)) for row in rows]


def _due(t: Transaction, row: Values) -> float:
    return -math.inf if row["due"] <= t.clock() else float(row["due"])


@writes(sql.step.REMEMBER, "INSERT 0")
def remember(t: Transaction, group: str, identities: list[bytes], names: list[str], answers: list[str]) -> Work:
    kept = 0
    for identity, name, answer in zip(identities, names, answers, strict=True):
        place = (group, identity, name)
        yield ("step", place)
        if t.get("step", place) is None:
            t.put("step", place, {"subscription": group, "identity": identity, "name": name, "answer": answer})
            kept += 1
    return kept


@reads(sql.step.READ)
def read(t: Transaction, group: str, identities: list[bytes]) -> list[Row]:
    rows = [row for row in t.group("step", group) if row["identity"] in identities]
    return [Row(identity=row["identity"], name=row["name"], answer=row["answer"]) for row in rows]


@writes(sql.step.FORGET, "DELETE")
def forget(t: Transaction, group: str, identities: list[bytes]) -> Work:
    return (yield from _remove(t, "step", t.keys("step", group, where=lambda row: row["identity"] in identities)))


def _remove(t: Transaction, table: str, places: list[Any]) -> Work:
    removed = 0
    for place in places:
        if t.get(table, place) is not None:
            yield (table, place)
            removed += t.get(table, place) is not None
            t.put(table, place, None)
    return removed


def _owned(t: Transaction, group: str, number: int) -> list[Values]:
    return [row for row in t.group("effect", group) if row["partition"] == number]
