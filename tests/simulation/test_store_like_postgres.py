"""The store's model answers as Postgres does: the same queries on both, of one session and of two side by side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from headrace import sql
from headrace.engine.group_commit import SmallBatch
from headrace.state.store import columns_of
from tests.simulation.clock import virtual_time
from tests.simulation.loop import Loop
from tests.simulation.store.client import Connection
from tests.simulation.store.server import Server
from tests.simulation.store.statements import READS, STATEMENTS
from tests.simulation.store.statements.journal import NOTE
from tests.simulation.store.transaction import Transaction
from tests.simulation.tape import BEGIN, COMMIT, ROLLBACK, TOKENS, Letter, Step, Tape
from tests.support.waiting import until

TIMES = {"at", "since", "seconds", "seconds_released", "late_seconds", "left_seconds", "now"}
"""Columns that differ: only whether there is a time is compared."""
TAPES, STEPS = 40, 80
_groups = count()


async def test_tapes_have_the_same_answers_on_both(pool: asyncpg.Pool) -> None:
    used: set[str] = set()
    for seed in range(TAPES):
        steps = Tape(seed, f"service.tape-{next(_groups)}").draw(STEPS)
        used |= {step.query for step in steps}
        found = run(partial(_alone, steps))
        async with pool.acquire() as connection:
            expected = await _answers(connection, steps)
        for place, (step, ours, theirs) in enumerate(zip(steps, found, expected, strict=True)):
            assert ours == theirs, f"tape {seed}, step {place}: {step}"
    unused = (READS.keys() | STATEMENTS.keys()) - used
    assert unused == {NOTE, "select 1", "select", sql.subscription.LAST_AUDIT, sql.dead_letter.INSERT_REFUSED_EMIT}


HELD = (0, TOKENS[0], 0)
"""Epoch, token and next offset of a claim that nobody has taken yet."""


def _claiming(group: str) -> list[Step]:
    return [BEGIN, Step(sql.claim.CLAIM, (group, "notes", 0, TOKENS[1], "pod-2", 9, "log", None), returns=True), COMMIT]


def _advancing(group: str) -> list[Step]:
    moved = (group, "notes", 0, *HELD, 5, 1, 1, None, None, None, 0)
    return [BEGIN, Step(sql.claim.ADVANCE_WITH_ROW, (*moved, 0, 5, 0, 0, 0, b"", b"", None)), COMMIT]


def _grouping(group: str) -> list[Step]:
    """Return the commit of a small batch with one state."""
    batch = SmallBatch(0, group, "notes", 0, 0, TOKENS[0], 0, 0, 5, 1, 1, 4, 7, 8, 0, 5, 0, 0, 0)
    state = {"batch": 0, "state": "notes", "key": "a", "version": 1, "data": {"n": 7}, "ttl": "P1D", "class_version": 1}
    told = msgspec.json.encode([batch]).decode(), json.dumps([state])
    return [BEGIN, Step(sql.batch.COMMIT, (told[0], [bytes(16)], [b"m"], [b"e"], told[1], 1, 1, "10000")), COMMIT]


def _writing(group: str, value: int, end: Step = COMMIT) -> list[Step]:
    columns = columns_of([("a", 1, b'{"n": %d}' % value)])
    written = Step(sql.state.WRITE, (group, "notes", 0, *columns, None, 1))
    return [BEGIN, written, end]


@pytest.mark.parametrize("first_ends", [COMMIT, ROLLBACK], ids=["committed", "rolled back"])
@pytest.mark.parametrize(
    "case",
    [
        "advance, claim",
        "claim, advance",
        "advance twice",
        "write twice",
        "group, claim",
        "claim, group",
        "group twice",
        "group, advance",
        "write, group",
    ],
)
async def test_second_session_waits_and_sees_the_same(pool: asyncpg.Pool, case: str, first_ends: Step) -> None:
    """The second one begins while the first holds its lock, and goes on when that has ended."""
    group = f"service.pair-{next(_groups)}"
    first, second = {
        "advance, claim": (_advancing(group), _claiming(group)),
        "claim, advance": (_claiming(group), _advancing(group)),
        "advance twice": (_advancing(group), _advancing(group)),
        "write twice": (_writing(group, 1), _writing(group, 2)),
        "group, claim": (_grouping(group), _claiming(group)),
        "claim, group": (_claiming(group), _grouping(group)),
        "group twice": (_grouping(group), _grouping(group)),
        "group, advance": (_grouping(group), _advancing(group)),
        "write, group": (_writing(group, 1), _grouping(group)),
    }[case]
    first = [*first[:-1], first_ends]
    enrolled = Step(sql.claim.ENROLL, (group, "notes", TOKENS[0], "log", None, [0], [0]))
    left = [
        Step(sql.claim.HELD, (group, [0]), returns=True),
        Step(sql.state.READ, (group, "notes", ["a"]), returns=True),
        Step(sql.ledger.NEWEST_IDS, (group, "notes", 0, 9, 9), returns=True),
        Step(sql.ledger.UNPUBLISHED_EMITS, (group, "notes", 0, 0), returns=True),
    ]
    expected = await _pair_on_postgres(pool, enrolled, first, second, left)
    assert run(lambda connect: _pair(connect(), connect(), [enrolled], first, second, left)) == expected


async def _alone(steps: Sequence[Step], connect: Callable[[], Connection]) -> list[Any]:
    return await _answers(connect(), steps)


async def _pair(one: Any, two: Any, *tapes: Sequence[Step]) -> list[Any]:
    """Run two tapes side by side: the second waits, or has ended, before the first one ends."""
    before, first, second, after = tapes
    letters: list[Any] = []
    answers = [await _answer(one, step, letters) for step in (*before, *first[:-1])]
    beside = asyncio.create_task(_answers(two, second))
    await asyncio.sleep(1.0)
    is_waiting = not beside.done()
    answers.append(await _answer(one, first[-1], letters))
    return [*answers, is_waiting, *await beside, *[await _answer(one, step, letters) for step in after]]


async def _pair_on_postgres(pool: asyncpg.Pool, enrolled: Step, *tapes: Sequence[Step]) -> list[Any]:
    first, second, after = tapes
    async with pool.acquire() as one, pool.acquire() as two:
        letters: list[Any] = []
        answers = [await _answer(one, step, letters) for step in (enrolled, *first[:-1])]
        beside = asyncio.create_task(_answers(two, second))
        await until(lambda: _waits(one, two), "the second session waits for a lock")
        answers.append(await _answer(one, first[-1], letters))
        return [*answers, True, *await beside, *[await _answer(one, step, letters) for step in after]]


async def _waits(one: Any, two: Any) -> bool:
    query = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"
    await one.execute("select pg_stat_clear_snapshot()")
    return bool(await one.fetchval(query, two.get_server_pid()))


def run(work: Callable[[Callable[[], Connection]], Coroutine[Any, Any, list[Any]]]) -> list[Any]:
    """Do the work on the model; it is given what makes a connection."""
    outer = asyncio.get_running_loop()
    loop = Loop(Random(1))
    server = Server(loop, lambda: 0.001)
    try:
        with virtual_time(loop):
            answers: list[Any] = loop.run(work(lambda: Connection(loop, server, None, 60.0)))
    finally:
        asyncio._set_running_loop(outer)
    assert loop.errors == []
    return answers


async def _answers(connection: Any, steps: Sequence[Step]) -> list[Any]:
    """Run the steps on one connection, of either kind."""
    letters: list[Any] = []
    return [await _answer(connection, step, letters) for step in steps]


async def _answer(connection: Any, step: Step, letters: list[Any]) -> Any:
    """Return the rows, how many were written, or the error's class, without what differs between the two."""
    if step.query in ("begin", "commit", "rollback"):
        ended = await (connection.call(step.query) if isinstance(connection, Connection) else _end(connection, step))
        return None if ended is None else step.query
    args = [_with_ids(each, letters) for each in step.args]
    try:
        if step.returns:
            rows = [_comparable(row, letters) for row in await connection.fetch(step.query, *args)]
            return sorted(rows, key=repr)
        written = await connection.execute(step.query, *args)
    except asyncpg.PostgresError as error:
        return type(error).__name__
    if step.query == sql.dead_letter.INSERT:
        await _note_letter(connection, letters, args[0])
    return written


async def _end(connection: Any, step: Step) -> str:
    return str(await connection.execute(step.query))


async def _note_letter(connection: Any, letters: list[Any], group: str) -> None:
    """Learn the id that the store gave to the dead letter that was written last."""
    if isinstance(connection, Connection):
        transaction = connection.session.transaction
        rows = (transaction or Transaction(connection.server, connection.session)).group("dead_letter")
    else:
        rows = await connection.fetch("select id from headrace.dead_letter where subscription = $1", group)
    known = [row["id"] for row in rows if row["id"] not in letters]
    letters += known


def _with_ids(value: Any, letters: list[Any]) -> Any:
    if isinstance(value, Letter):
        return letters[value.number] if value.number < len(letters) else UUID(int=0)
    return [_with_ids(each, letters) for each in value] if isinstance(value, list) else value


def _comparable(row: Any, letters: list[Any]) -> dict[str, Any]:
    if len(row) == 1 and "id" not in dict(row.items()):  # its name is of no interest, and a number of seconds differs
        (value,) = row
        return {"value": value is not None if isinstance(value, float) else value}
    return {name: _plain(name, value, letters) for name, value in row.items()}


def _plain(name: str, value: Any, letters: list[Any]) -> Any:
    if name in TIMES:
        return value is not None
    if name == "id":
        return f"letter {letters.index(value)}" if value in letters else "another letter"
    return round(value, 3) if isinstance(value, float) else value
