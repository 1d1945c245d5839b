"""Calls in Postgres, written and removed by set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from headrace import sql
from headrace.database.pool import Connection, Row
from headrace.effects.calls import Call, Place
from headrace.log.ports import StoredRecord
from headrace.log.stored import pack_headers, plain, stored_record


class Kept(NamedTuple):
    """A call as its row has it."""

    identity: bytes
    number: int
    record: StoredRecord
    attempts: int
    due: float
    error: str | None
    answers: dict[str, str]
    last_number: int
    """At least that of every call of the partition, as far as it was asked for."""


class Wait(NamedTuple):
    """What a failed call waits for."""

    attempts: int
    due: float
    error: str


async def start(connection: Connection, group: str, partition: int, calls: Sequence[Call]) -> None:
    """Write the calls of applied events, in the transaction that applies them."""
    await connection.execute(sql.effect.START, group, partition, *zip(*map(_row, calls), strict=True))


async def load(connection: Connection, group: str, partition: int) -> list[Kept]:
    """Return the calls of a partition in order, with their steps' answers; without those behind a held one."""
    rows = await connection.fetch(sql.effect.LOAD, group, partition)
    return await _kept(connection, group, partition, rows, rows[0]["last_number"] if rows else 0)


async def load_behind(
    connection: Connection, group: str, partition: int, key: str, place: Place, most: int
) -> list[Kept]:
    """Return the next calls of a key, behind a place, in order."""
    rows = await connection.fetch(sql.effect.LOAD_BEHIND, group, partition, key.encode(), *place, most)
    return await _kept(connection, group, partition, rows, 0)


async def _kept(
    connection: Connection, group: str, partition: int, rows: Sequence[Row], last_number: int
) -> list[Kept]:
    answers = await read_answers(connection, group, [row["identity"] for row in rows]) if rows else {}
    return [
        Kept(
            row["identity"],
            row["number"],
            stored_record(row, partition),
            row["attempts"],
            row["due"],
            row["error"],
            answers.get(row["identity"], {}),
            last_number,
        )
        for row in rows
    ]


async def end(connection: Connection, group: str, calls: Sequence[Call], *, forgets: Sequence[Call]) -> None:
    """Remove calls that are done or given up on, and the answers of `forgets`."""
    await connection.execute(sql.effect.END, group, [call.item.identity for call in calls])
    identities = [call.item.identity for call in forgets if call.answers]
    if identities:
        await connection.execute(sql.step.FORGET, group, identities)


async def wait(connection: Connection, group: str, waits: Mapping[Call, Wait]) -> None:
    """Let failed calls wait."""
    rows = [(call.item.identity, each.attempts, each.due, plain(each.error)) for call, each in waits.items()]
    await connection.execute(sql.effect.WAIT, group, *zip(*rows, strict=True))


async def read_answers(connection: Connection, group: str, identities: Sequence[bytes]) -> dict[bytes, dict[str, str]]:
    """Return what the steps of some events were answered, by identity and name."""
    answers: dict[bytes, dict[str, str]] = {}
    for row in await connection.fetch(sql.step.READ, group, identities):
        answers.setdefault(row["identity"], {})[row["name"]] = row["answer"]
    return answers


async def remember(connection: Connection, group: str, answers: Sequence[tuple[bytes, str, str]]) -> None:
    """Keep (identity, name, answer)."""
    await connection.execute(sql.step.REMEMBER, group, *zip(*answers, strict=True))


def _row(call: Call) -> tuple[Any, ...]:
    item, record = call.item, call.item.record
    return (
        item.identity,
        call.number,
        call.key.encode(),
        record.topic,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        pack_headers(record.headers),
    )
