"""Queries on claims."""

from __future__ import annotations

from typing import Any

from headrace import sql
from tests.simulation.store.statements.ledger import insert
from tests.simulation.store.statements.model import Work, reads, writes
from tests.simulation.store.tables import Row, Values
from tests.simulation.store.transaction import Transaction


def _of(t: Transaction, group: str, topic: str | None = None) -> list[Values]:
    return [row for row in t.group("claim") if row["subscription"] == group and topic in (None, row["topic"])]


@reads(sql.claim.KNOWN_PARTITIONS)
def known_partitions(t: Transaction, group: str, topic: str) -> list[Row]:
    rows = _of(t, group, topic)
    logs = [row["log_id"] for row in rows if row["log_id"] is not None]
    return [Row(partitions=len(rows), log_id=min(logs, default=None))]


@reads(sql.claim.HELD)
def held(t: Transaction, group: str, numbers: list[int]) -> list[Row]:
    names = ("topic", "partition", "token", "next_offset", "sequence", "emitted_through")
    return [Row(**{name: row[name] for name in names}) for row in _of(t, group) if row["partition"] in numbers]


@reads(sql.claim.POSITIONS)
def positions(t: Transaction, group: str) -> list[Row]:
    names = ("topic", "partition", "log_id", "topic_id", "next_offset")
    return [Row(**{name: row[name] for name in names}) for row in _of(t, group)]


@writes(sql.claim.ENROLL, "INSERT 0")
def enroll(
    t: Transaction,
    group: str,
    topic: str,
    token: Any,
    log_id: str,
    topic_id: str | None,
    numbers: list[int],
    offsets: list[int],
) -> Work:
    made = 0
    for number, offset in zip(numbers, offsets, strict=True):
        key = (group, topic, number)
        yield ("claim", key)
        if t.get("claim", key) is not None:
            continue
        made += 1
        row = {
            "subscription": group,
            "topic": topic,
            "partition": number,
            "epoch": 0,
            "token": token,
            "owner": None,
            "claimed_offset": offset,
            "crashes": 0,
            "next_offset": offset,
            "sequence": 0,
            "emitted_through": 0,
            "last_offset": None,
            "last_timestamp": None,
            "last_crc": None,
            "committed_at": t.now(),
            "log_id": log_id,
            "topic_id": topic_id,
            "is_applying": False,
            "leaving": False,
            "released_at": None,
        }
        t.put("claim", key, row)
    return made


@reads(sql.claim.HOLDER)
def holder(t: Transaction, group: str, number: int, topics: list[str], owner: str) -> list[Row]:
    found = [
        row["leaving"]
        for row in _of(t, group)
        if row["partition"] == number and row["topic"] in topics and row["owner"] not in (None, owner)
    ]
    return [Row(leaving=max(found))] if found else []


@writes(sql.claim.LEAVE, "UPDATE")
def leave(t: Transaction, group: str, numbers: list[int], topics: list[str], owner: str) -> Work:
    def ours(row: Values) -> bool:
        return bool(row["owner"] == owner)

    changed = 0
    for key in t.keys("claim", where=lambda row: _is_among(row, group, numbers, topics) and ours(row)):
        row = yield from t.change("claim", key, ours, lambda row: {"leaving": True})
        changed += row is not None
    return changed


@writes(sql.claim.OWNER_FOR_UPDATE, "SELECT")
def owner_for_update(t: Transaction, group: str, topic: str, number: int) -> Work:
    key = (group, topic, number)
    if t.get("claim", key) is None:
        return []
    yield ("claim", key)
    row = t.get("claim", key)
    if row is None:
        return []
    released = row["released_at"]
    return [Row(owner=row["owner"], seconds_released=None if released is None else t.clock() - released)]


@reads(sql.claim.END_SILENT)
def end_silent(t: Transaction) -> list[Row]:
    return [Row(count=0)]  # a frozen process has sent its statement, or not


@writes(sql.claim.CLAIM, "UPDATE")
def claim(
    t: Transaction,
    group: str,
    topic: str,
    number: int,
    token: Any,
    owner: str,
    log_end: int,
    log_id: str,
    topic_id: str | None,
) -> Work:
    def change(held: Values) -> Values:
        if held["owner"] is None:
            crashes = 0
        elif held["owner"] == owner:
            crashes = held["crashes"]
        elif held["next_offset"] >= log_end:
            crashes = 0
        elif not held["is_applying"]:
            crashes = held["crashes"]
        else:
            crashes = held["crashes"] + 1 if held["next_offset"] == held["claimed_offset"] else 1
        return {
            "epoch": held["epoch"] + 1,
            "token": token,
            "owner": owner,
            "log_id": held["log_id"] or log_id,
            "topic_id": topic_id if held["next_offset"] == 0 else held["topic_id"] or topic_id,
            "crashes": crashes,
            "claimed_offset": held["next_offset"],
            "is_applying": False,
            "leaving": False,
            "released_at": None,
        }

    row = yield from t.change("claim", (group, topic, number), lambda row: True, change)
    names = "epoch next_offset sequence emitted_through last_offset last_timestamp last_crc crashes log_id topic_id"
    return [] if row is None else [Row(**{name: row[name] for name in names.split()})]


def _is_held(row: Values, *held: Any) -> bool:
    return held == (row["epoch"], row["token"], row["next_offset"], row["sequence"])


@writes(sql.claim.LOCK_IF_HELD, "SELECT")
def lock_if_held(
    t: Transaction, group: str, topic: str, number: int, epoch: int, token: Any, next_offset: int, sequence: int
) -> Work:
    row = yield from t.change(
        "claim", (group, topic, number), lambda row: _is_held(row, epoch, token, next_offset, sequence), lambda row: {}
    )
    return [] if row is None else [Row(one=1)]


@reads(sql.claim.IS_HELD)
def is_held(t: Transaction, group: str, topic: str, number: int, epoch: int, token: Any, next_token: Any) -> list[Row]:
    row, held = t.get("claim", (group, topic, number)), ((epoch, token), (epoch + 1, next_token))
    return [Row(one=1)] if row is not None and (row["epoch"], row["token"]) in held else []


@writes(sql.claim.ADVANCE, "UPDATE")
def advance(
    t: Transaction,
    group: str,
    topic: str,
    number: int,
    epoch: int,
    token: Any,
    held_offset: int,
    next_offset: int,
    sequence: int,
    emitted_through: int,
    last_offset: int | None,
    last_timestamp: int | None,
    last_crc: int | None,
    held_sequence: int,
) -> Work:
    def change(row: Values) -> Values:
        return {
            "next_offset": next_offset,
            "sequence": sequence,
            "emitted_through": emitted_through,
            "last_offset": last_offset,
            "last_timestamp": last_timestamp,
            "last_crc": last_crc,
            "crashes": 0 if next_offset > row["next_offset"] else row["crashes"],
            "committed_at": t.now() if sequence > row["sequence"] else row["committed_at"],
        }

    row = yield from t.change(
        "claim", (group, topic, number), lambda row: _is_held(row, epoch, token, held_offset, held_sequence), change
    )
    return int(row is not None)


@writes(sql.claim.ADVANCE_WITH_ROW, "INSERT 0")
def advance_with_row(t: Transaction, *values: Any) -> Work:
    moved, (kind, *did) = values[:13], values[13:]
    changed = yield from advance(t, *moved)
    if not changed:
        return 0
    group, topic, number, epoch, _, held_offset, next_offset, sequence = moved[:8]
    return (yield from insert(t, group, topic, number, sequence, kind, epoch, held_offset, next_offset, *did))


@writes(sql.claim.BEGIN_APPLYING, "UPDATE")
def begin_applying(
    t: Transaction, group: str, topic: str, number: int, epoch: int, token: Any, next_offset: int, sequence: int
) -> Work:
    row = yield from t.change(
        "claim",
        (group, topic, number),
        lambda row: _is_held(row, epoch, token, next_offset, sequence),
        lambda row: {"is_applying": True},
    )
    return int(row is not None)


@writes(sql.claim.RENEW, "UPDATE")
def renew(t: Transaction, group: str, topic: str, number: int, epoch: int, token: Any, next_token: Any) -> Work:
    row = yield from t.change(
        "claim",
        (group, topic, number),
        lambda row: (row["epoch"], row["token"]) == (epoch, token),
        lambda row: {"epoch": epoch + 1, "token": next_token},
    )
    return int(row is not None)


@writes(sql.claim.RELEASE, "UPDATE")
def release(t: Transaction, group: str, number: int, topics: list[str], owner: str) -> Work:
    def ours(row: Values) -> bool:
        return bool(row["owner"] == owner)

    def change(row: Values) -> Values:
        return {"owner": None, "crashes": 0, "leaving": False, "released_at": t.clock()}

    changed = 0
    for key in t.keys("claim", where=lambda row: _is_among(row, group, [number], topics) and ours(row)):
        row = yield from t.change("claim", key, ours, change)
        changed += row is not None
    return changed


@writes(sql.claim.LAST_BATCH_FOR_UPDATE, "SELECT")
def last_batch_for_update(t: Transaction, group: str, topic: str, number: int) -> Work:
    row = yield from t.change("claim", (group, topic, number), lambda row: True, lambda row: {})
    names = ("epoch", "token", "next_offset", "sequence")
    return [] if row is None else [Row(**{name: row[name] for name in names})]


def _is_among(row: Values, group: str, numbers: list[int], topics: list[str]) -> bool:
    return bool(row["subscription"] == group and row["partition"] in numbers and row["topic"] in topics)
