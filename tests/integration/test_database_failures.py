"""Errors that a real server raises, and what they mean for a batch."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from headrace.database.failures import classify, kind_of
from headrace.errors import DataRefusedError, StateUnavailableError

_TABLE = """
    create table thing (
        id int primary key, small smallint, note text, data jsonb,
        parent int references thing deferrable initially deferred
    )
"""


async def _error_of(pool: asyncpg.Pool, sql: str, *arguments: Any) -> BaseException:
    async with pool.acquire() as connection:
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)) as raised:
            async with connection.transaction():
                await connection.execute(sql, *arguments)
    return raised.value


@pytest.mark.parametrize(
    ("sql", "argument"),
    [
        ("insert into thing (id, note) values (1, $1)", "a NUL: \x00"),
        ("insert into thing (id, note) values (1, $1)", "a surrogate: \ud800"),
        ("insert into thing (id, small) values (1, $1)", 70_000),
        ("insert into thing (id, small) values (1, $1::text::numeric::smallint)", "70000"),
        ("insert into thing (id, data) values (1, $1::jsonb)", "{"),
        ("insert into thing (id, data) values (1, $1::jsonb)", '{"a": "\\u0000"}'),
        ("insert into thing (id) values ($1), ($1)", 1),
        ("insert into thing (id) values ($1)", None),
        ("insert into thing (id, parent) values (1, $1)", 99),
        ("insert into thing (id, note) select 1, repeat($1, 300000000)", "four"),
        ("do $$ begin raise exception 'no'; end $$ -- ", None),
    ],
)
async def test_data_that_the_database_refuses_are_the_events_fault(pool: asyncpg.Pool, sql: str, argument: Any) -> None:
    await pool.execute(_TABLE)
    error = await (_error_of(pool, sql, argument) if "$1" in sql else _error_of(pool, sql))
    failure = classify(error)
    assert isinstance(failure, DataRefusedError), repr(error)
    assert kind_of(error) == "other"
    assert "\n" not in str(failure)


async def test_a_statement_that_takes_too_long_is_a_timeout(pool: asyncpg.Pool) -> None:
    error = await _error_of(pool, "set local statement_timeout = 1; select pg_sleep(10)")
    assert isinstance(classify(error), StateUnavailableError)
    assert kind_of(error) == "timeout"


async def test_a_lock_that_is_not_to_be_had_is_a_timeout(pool: asyncpg.Pool) -> None:
    await pool.execute(_TABLE)
    async with pool.acquire() as holder, holder.transaction():
        await holder.execute("lock table thing")
        error = await _error_of(pool, "set local lock_timeout = 1; select * from thing")
    assert isinstance(classify(error), StateUnavailableError)
    assert kind_of(error) == "timeout"


async def test_a_deadlock_is_tried_again(pool: asyncpg.Pool) -> None:
    await pool.execute(_TABLE)
    await pool.execute("insert into thing (id) values (1), (2)")
    met = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> BaseException | None:
        async with pool.acquire() as connection:
            try:
                async with connection.transaction():
                    await connection.execute("select * from thing where id = $1 for update", first)
                    await met.wait()
                    await connection.execute("select * from thing where id = $1 for update", second)
            except asyncpg.PostgresError as error:
                return error
        return None

    errors = [error for error in await asyncio.gather(lock(1, 2), lock(2, 1)) if error is not None]
    assert [kind_of(error) for error in errors] == ["deadlock"]
    assert isinstance(classify(errors[0]), StateUnavailableError)


async def test_a_serialisation_failure_is_tried_again(pool: asyncpg.Pool) -> None:
    await pool.execute(_TABLE)
    await pool.execute("insert into thing (id) values (1)")
    async with pool.acquire() as one:
        transaction = one.transaction(isolation="repeatable_read")
        await transaction.start()
        await one.fetch("select * from thing")
        await pool.execute("update thing set note = 'other'")
        with pytest.raises(asyncpg.SerializationError) as raised:
            await one.execute("update thing set note = 'mine'")
        await transaction.rollback()
    assert kind_of(raised.value) == "serialisation"
    assert isinstance(classify(raised.value), StateUnavailableError)


async def test_a_session_that_is_cut_and_a_closed_connection_are_unavailable(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        pid = await connection.fetchval("select pg_backend_pid()")
        running = asyncio.ensure_future(connection.fetch("select pg_sleep(60)"))
        assert await pool.fetchval("select pg_terminate_backend($1, 10000)", pid)
        with pytest.raises((asyncpg.PostgresError, OSError)) as cut:
            await running
        with pytest.raises(asyncpg.InterfaceError) as closed:
            await connection.fetch("select 1")
    for error in (cut.value, closed.value):
        assert isinstance(classify(error), StateUnavailableError), repr(error)
        assert kind_of(error) == "unavailable"


async def test_a_server_that_takes_no_writes_is_unavailable(pool: asyncpg.Pool) -> None:
    error = await _error_of(pool, "set transaction read only; create table other (id int)")
    assert isinstance(classify(error), StateUnavailableError)


async def test_a_closed_pool_is_unavailable(pool: asyncpg.Pool) -> None:
    await pool.close()
    with pytest.raises(asyncpg.InterfaceError) as raised:
        await pool.fetch("select 1")
    assert isinstance(classify(raised.value), StateUnavailableError)


@pytest.mark.parametrize(
    "sql", ["selec 1", "select * from missing", "select missing from pg_class", "select 1 + 'a'::text"]
)
async def test_wrong_sql_is_a_bug_and_stays_what_it_is(pool: asyncpg.Pool, sql: str) -> None:
    error = await _error_of(pool, sql)
    assert classify(error) is None
    assert kind_of(error) == "other"
