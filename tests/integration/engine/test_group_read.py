"""Small batches that ask for the same state share a read, and one that is at fault harms none of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest_asyncio

from headrace.database.failures import classify
from headrace.engine.group_read import MOST_KEYS, GroupRead
from headrace.errors import StateUnavailableError
from headrace.state.cache import StoredState
from tests.support.waiting import until

PLACE = ("shop.notes", "page")
STORE = (
    "insert into headrace.state (subscription, state, key, partition, version, data) values ($1, $2, $3, 0, $4, '{}')"
)


class Lender:
    """Lends connections to Postgres, and counts how often; `lock` holds up every read meanwhile."""

    def __init__(self, url: str, pool: asyncpg.Pool) -> None:
        self._url, self._pool = url, pool
        self.lent = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        self.lent += 1
        try:
            async with self._pool.acquire() as connection:
                yield connection
        except Exception as error:
            failure = classify(error)
            if failure is None:
                raise
            raise failure from error

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[asyncpg.Connection]:
        other = await asyncpg.connect(self._url)
        async with other.transaction():
            await other.execute("lock table headrace.state in access exclusive mode")
            yield other
        await other.close()


@pytest_asyncio.fixture
async def lender(database_url: str) -> AsyncIterator[Lender]:
    async with asyncpg.create_pool(database_url, min_size=0, max_size=4) as pool:
        for version, key in enumerate("abcde", 1):
            await pool.execute(STORE, *PLACE, key, version)
        yield Lender(database_url, pool)


@asynccontextmanager
async def gathered(lender: Lender, *keys: Sequence[str]) -> AsyncIterator[list[asyncio.Task[list[StoredState]]]]:
    """Yield reads of which the first is under way, and the others wait; behind the block Postgres answers."""
    group = GroupRead(lender.connection)
    async with lender.lock() as other:
        reads = [asyncio.create_task(group.read(*PLACE, list(each))) for each in keys]
        await until(lambda: _waiting(other), "the first read waits for the lock")
        assert lender.lent == 1
        yield reads
    await asyncio.wait(reads)


async def _waiting(connection: asyncpg.Connection) -> int | None:
    """Return the process id of the session that waits for the lock."""
    pid: int | None = await connection.fetchval(
        "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )
    return pid


def _versions(rows: Sequence[StoredState]) -> list[tuple[str, int]]:
    return sorted((row.key, row.version) for row in rows)


async def test_who_asks_during_a_read_shares_the_next_one(lender: Lender) -> None:
    """Each gets its own keys, of which one may be another's as well, and one unknown."""
    async with gathered(lender, "a", "bc", "x", "cd") as reads:
        pass
    assert [_versions(read.result()) for read in reads] == [
        [("a", 1)],
        [("b", 2), ("c", 3)],
        [("x", 0)],
        [("c", 3), ("d", 4)],
    ]
    assert lender.lent == 2


async def test_who_asks_alone_reads_at_once(lender: Lender) -> None:
    group = GroupRead(lender.connection)
    for expected, key in enumerate("abc", 1):
        assert _versions(await group.read(*PLACE, [key])) == [(key, expected)]
        assert lender.lent == expected


async def test_other_states_and_many_keys_do_not_wait(lender: Lender) -> None:
    group = GroupRead(lender.connection)
    async with lender.lock() as other:
        places = [(*PLACE, ["a"]), ("shop.notes", "book", ["a"]), (*PLACE, [f"k{n}" for n in range(MOST_KEYS + 1)])]
        reads = [asyncio.create_task(group.read(*place)) for place in places]
        await until(lambda: _waiting(other), "they wait for the lock")
        await until(lambda: lender.lent == len(places), "each has a connection of its own")
    assert [len(rows) for rows in await asyncio.gather(*reads)] == [1, 1, MOST_KEYS + 1]


async def test_keys_that_postgres_refuses_are_their_own_batch_s_fault(lender: Lender) -> None:
    """No text of Postgres holds a NUL."""
    async with gathered(lender, "a", "b", "\0", "c") as reads:
        pass
    refused = reads.pop(2)
    assert [_versions(read.result()) for read in reads] == [[("a", 1)], [("b", 2)], [("c", 3)]]
    assert refused.exception() is not None


async def test_lost_connection_is_told_to_all_that_share_it(lender: Lender) -> None:
    group = GroupRead(lender.connection)
    async with lender.lock() as other:
        first = asyncio.create_task(group.read(*PLACE, ["a"]))
        await until(lambda: _waiting(other), "the first read waits for the lock")
        reads = [asyncio.create_task(group.read(*PLACE, [key])) for key in "bc"]
        await asyncio.sleep(0)
        first.cancel()
        await until(lambda: lender.lent == 2, "the others are read")
        await until(lambda: _waiting(other), "their read waits for the lock")
        await other.execute("select pg_terminate_backend($1)", await _waiting(other))
        done, _ = await asyncio.wait(reads, timeout=30)
    assert [type(read.exception()) for read in done] == [StateUnavailableError] * 2


async def test_first_one_that_is_cancelled_holds_up_nobody(lender: Lender) -> None:
    async with gathered(lender, "a", "b", "c") as reads:
        reads[0].cancel()
        reads[1].cancel()
    assert [read.cancelled() for read in reads] == [True, True, False]
    assert _versions(reads[2].result()) == [("c", 3)]


async def test_one_that_comes_later_is_read_later(lender: Lender) -> None:
    """What was written before it asked is in what it gets, whatever was under way."""
    group = GroupRead(lender.connection)
    for number in range(3):
        first = asyncio.create_task(group.read(*PLACE, ["a"]))
        await asyncio.sleep(0)
        async with lender.connection() as connection:
            await connection.execute("update headrace.state set version = $1 where key = 'b'", 10 + number)
        assert _versions(await group.read(*PLACE, ["b"])) == [("b", 10 + number)]
        await first
