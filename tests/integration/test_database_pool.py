"""A connection behaves the same on every server, and one that cannot be had is explained without its password."""

from __future__ import annotations

import traceback
from typing import cast
from urllib.parse import urlsplit

import asyncpg
import pytest

from headrace.database.pool import check_server, connect, open_pool, postgres_version, session_settings
from headrace.database.session import Session
from headrace.errors import ConfigurationError, HeadraceError, StateUnavailableError
from headrace.settings import DatabaseSettings, Settings
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer

_SECRET = "s3cr3t-s3cr3t"


async def test_defaults_of_the_database_do_not_leak_in(database_url: str) -> None:
    name = urlsplit(database_url).path.strip("/")
    hostile = {
        "search_path": "pg_catalog",
        "timezone": "'Asia/Kathmandu'",
        "statement_timeout": "'1h'",
        "default_transaction_isolation": "serializable",
        "default_transaction_read_only": "on",
        "synchronous_commit": "off",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "datestyle": "'SQL, DMY'",
    }
    connection = await connect(database_url)
    for setting, value in hostile.items():
        await connection.execute(f"alter database {name} set {setting} = {value}")
    await connection.close()

    pool = await open_pool(Settings(), database_url, size=1)
    try:
        async with pool.acquire() as borrowed:
            await borrowed.execute("set timezone = 'Asia/Kathmandu'")  # by a handler: gone with the connection's return
        async with pool.acquire() as borrowed:
            for setting, value in session_settings(DatabaseSettings()).items():
                found = await borrowed.fetchval(
                    "select case when unit in ('ms', 's') then setting else current_setting(name) end "
                    "from pg_settings where lower(name) = $1",
                    setting,
                )
                assert found.split(",")[0] == value, setting
    finally:
        pool.terminate()


async def test_a_pooler_that_ignores_session_settings_is_refused(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)  # what is left of a session behind such a pooler
    try:
        with pytest.raises(ConfigurationError, match=r"does not take session settings.*a pooler in session mode"):
            await check_server(connection, database_url)
    finally:
        await connection.close()


async def test_json_goes_in_and_comes_out_as_text(pool: asyncpg.Pool) -> None:
    assert await pool.fetchval("select $1::jsonb", '{"a": [1]}') == '{"a": [1]}'


async def test_a_password_that_needs_quoting_logs_in(postgres: PostgresServer) -> None:
    connection = await connect(postgres.url)
    assert int((await postgres_version(connection)).split(".")[0]) >= 14
    await connection.close()


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"password": _SECRET}, ConfigurationError, "password authentication failed.*HEADRACE_DATABASE_PASSWORD"),
        ({"user": "nobody-here"}, ConfigurationError, "nobody-here.*HEADRACE_DATABASE_PASSWORD"),
        ({"path": "/missing"}, ConfigurationError, '"missing" does not exist; create the database'),
        ({"query": "sslmode=require"}, ConfigurationError, "sslmode"),
        ({"query": "sslmode=nonsense"}, ConfigurationError, "not an address"),
        ({"query": "sslmode=verify-full&sslrootcert=/missing.pem"}, ConfigurationError, "sslrootcert"),
        ({"host": "nowhere.invalid"}, StateUnavailableError, "nowhere.invalid:.*cannot be reached"),
        ({"port": "free"}, StateUnavailableError, "cannot be reached"),
        ({"port": "abc"}, ConfigurationError, "not an address"),
        ({"port": "99999"}, ConfigurationError, "not an address"),
    ],
)
async def test_an_error_is_one_sentence_without_the_password(
    database_url: str, change: dict[str, str], kind: type[HeadraceError], sentence: str
) -> None:
    parts = urlsplit(database_url)
    port = {"free": free_ports(1)[0]}.get(change.get("port", ""), change.get("port", parts.port))
    login = f"{change.get('user', parts.username)}:{change.get('password', parts.password)}"
    place = f"{change.get('host', parts.hostname)}:{port}{change.get('path', parts.path)}"
    with pytest.raises(kind, match=f"^HEADRACE_DATABASE.*{sentence}") as raised:
        await open_pool(Settings(), f"postgresql://{login}@{place}?{change.get('query', '')}")
    assert len(str(raised.value).splitlines()) == 1
    told = "".join(traceback.format_exception(raised.value))
    assert _SECRET not in told
    assert str(parts.password) not in told


async def test_a_server_that_is_shut_down_is_unavailable() -> None:
    """It is used again as soon as it is back."""
    server = PostgresServer()
    await server.start()
    try:
        await server.kill()
        with pytest.raises(StateUnavailableError):
            await open_pool(Settings(), server.url)
        await server.start()
        pool = await open_pool(Settings(), server.url)
        pool.terminate()
    finally:
        await server.stop()


async def test_what_a_team_leaves_in_a_session_is_forgotten(database_url: str) -> None:
    """A connection that only the platform has used is taken back without a word; one that was handed over is reset."""
    pool = await open_pool(Settings(), database_url, size=1)
    async with pool.acquire() as connection:
        kept = await connection.fetchval("select current_setting('statement_timeout')")
        cast("Session", connection).keep_own()
        cast("Session", connection).hand_over()
        await connection.execute("set statement_timeout = '7s'; select pg_advisory_lock(7)")
    async with pool.acquire() as connection:
        cast("Session", connection).keep_own()
        assert await connection.fetchval("select current_setting('statement_timeout')") == kept
        assert await connection.fetchval("select count(*) from pg_locks where locktype = 'advisory'") == 0
        queries: list[str] = []
        connection.add_query_logger(lambda record: queries.append(record.query))
    assert queries == []
    async with pool.acquire():  # a lender that says nothing: whoever has it may be a team's code
        pass
    assert len(queries) == 1
    await pool.close()


async def test_types_are_asked_for_once_in_a_process(pool: asyncpg.Pool, database_url: str) -> None:
    """Asking takes the server longer than a small batch, and a pool opens a connection for each partition."""
    queries: list[str] = []
    for asked in (pool, await open_pool(Settings(), database_url)):
        async with asked.acquire() as connection:
            connection.add_query_logger(lambda record: queries.append(record.query))
            queries.clear()
            assert await connection.fetchval("select $1::bigint[]", [1, 2]) == [1, 2]
        asked.terminate()
    assert len(queries) == 2  # ours, and the reset as the connection returns


async def test_types_of_a_database_are_asked_for_each_time(database_url: str) -> None:
    """A migration may change them under the same number."""
    first = await connect(database_url)
    await first.execute("create type public.spot as (x int)")
    assert await first.fetchval("select row(1)::public.spot") == (1,)
    await first.execute("alter type public.spot add attribute y int")
    second = await connect(database_url)
    assert await second.fetchval("select row(1, 2)::public.spot") == (1, 2)
    await first.close()
    await second.close()
