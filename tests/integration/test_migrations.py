"""Migrations are applied once, in order, by however many, and refuse a database that they do not understand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from headrace.database import migrate as migrations
from headrace.database.migrate import PHASES, Migration, expected_version, load_migrations, migrate, read_schema
from headrace.database.pool import connect, open_pool
from headrace.errors import ConfigurationError
from headrace.log.embedded import EmbeddedLog
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from headrace.version import VERSION
from tests.support.platform import fetch, notebook, running, settings_for
from tests.support.postgres import GUEST, PostgresServer


@pytest_asyncio.fixture
async def empty_url(postgres: PostgresServer) -> AsyncIterator[str]:
    async with postgres.database(migrated=False) as url:
        yield url


@pytest_asyncio.fixture
async def connection(empty_url: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await connect(empty_url)
    yield opened
    await opened.close()


def _next(sql: str, name: str = "next") -> Migration:
    return Migration("pre", expected_version("pre") + 1, name, sql)


async def test_a_second_run_finds_nothing_to_do(connection: asyncpg.Connection) -> None:
    said: list[str] = []
    assert (await read_schema(connection)).versions == {"pre": 0, "post": 0}
    applied = await migrate(connection, "pre", said.append)
    assert applied == [str(migration) for migration in load_migrations() if migration.phase == "pre"]
    assert said == [f"applied {name}" for name in applied]
    assert await migrate(connection, "pre") == []
    assert await migrate(connection, "post") == [str(m) for m in load_migrations() if m.phase == "post"]
    assert (await read_schema(connection)).versions == {
        "pre": expected_version("pre"),
        "post": expected_version("post"),
    }


async def test_migrators_that_start_together_apply_each_file_once(empty_url: str) -> None:
    results = await asyncio.gather(*(migrate(empty_url) for _ in range(6)))
    applied = [name for result in results for name in result]
    assert sorted(applied) == sorted(str(m) for m in load_migrations() if m.phase == "pre")


async def test_a_file_that_fails_leaves_nothing_of_itself(connection: asyncpg.Connection) -> None:
    await migrate(connection)
    broken = _next("create table headrace.half (id int); select 1 / 0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection, known=[*load_migrations(), broken])
    assert await connection.fetchval("select to_regclass('headrace.half')") is None
    assert (await read_schema(connection)).versions["pre"] == expected_version("pre")


async def test_the_last_of_several_files_waits_for_the_disk(connection: asyncpg.Connection) -> None:
    """The commits before it need not: the disk has them by then."""
    note = "create table {} as select current_setting('synchronous_commit') as waits;"
    files = [Migration("pre", number, "note", note.format(f"note_{number}")) for number in (1, 2, 3)]
    await migrate(connection, known=files)
    waits = [await connection.fetchval(f"select waits from note_{file.number}") for file in files]
    assert waits == ["off", "off", "on"]


async def test_newer_pre_migrations_leave_older_code_working(connection: asyncpg.Connection) -> None:
    newer = _next("create table headrace.novelty (id int)", "novelty")
    await migrate(connection, known=[*load_migrations(), newer])
    schema = await read_schema(connection)
    assert schema.unknown == [str(newer)]
    assert schema.newer is None and schema.older is None
    assert await migrate(connection, "pre") == []
    assert await migrate(connection, "post") == [str(m) for m in load_migrations() if m.phase == "post"]


async def test_newer_post_migrations_are_refused(connection: asyncpg.Connection) -> None:
    newer = Migration("post", 9999, "farewell", "create table headrace.farewell (id int)")
    await migrate(connection)
    await migrate(connection, "post", known=[*load_migrations(), newer])
    schema = await read_schema(connection)
    assert schema.newer is not None
    assert schema.newer.sentence == (
        "the schema of HEADRACE_DATABASE is newer than this version of Headrace "
        "(it has post/9999_farewell, which this version does not know); run the newer release."
    )
    for phase in PHASES:
        with pytest.raises(ConfigurationError, match=r"newer than this version.*post/9999_farewell"):
            await migrate(connection, phase)


async def test_missing_file_is_noticed_behind_a_newer_one(connection: asyncpg.Connection) -> None:
    """The highest number alone would hide that a file between was never applied."""
    first, *_ = load_migrations()
    newer = Migration("pre", 9999, "novelty", "create table headrace.novelty (id int)")
    await migrate(connection, known=[first, newer])
    schema = await read_schema(connection)
    assert schema.older is not None
    assert schema.older.advice == "run headrace migrate"
    await migrate(connection)
    assert (await read_schema(connection)).older is None


async def test_a_file_changed_after_it_was_applied_is_refused(connection: asyncpg.Connection) -> None:
    await migrate(connection)
    first, *others = load_migrations()
    with pytest.raises(ConfigurationError, match=f"{first} was changed after"):
        await migrate(connection, known=[first._replace(sql=first.sql + "\n-- changed"), *others])


async def test_post_waits_for_pre(connection: asyncpg.Connection) -> None:
    with pytest.raises(ConfigurationError, match="headrace migrate --phase pre"):
        await migrate(connection, "post")


async def test_post_waits_for_the_end_of_older_code(connection: asyncpg.Connection) -> None:
    """A process that does not know the migration holds it up, until it has ended or was silent for a minute."""
    await migrate(connection)
    farewell = Migration("post", 7, "farewell", "create table headrace.farewell (id int)")
    files = [*load_migrations(), farewell]
    row = "insert into headrace.process (name, role, version, post, seen_at) values ($1, 'worker', $2, $3, {})"
    await connection.execute(row.format("now()"), "pod-new", "2.0", 7)
    await connection.execute(row.format("now() - interval '61 s'"), "pod-dead", "1.0", 0)
    await connection.execute(row.format("now()"), "pod-old", "1.0", 0)
    with pytest.raises(
        ConfigurationError, match=r"post/0007_farewell .* last minute: pod-old \(version 1.0\); replace"
    ):
        await migrate(connection, "post", known=files)
    await connection.execute("delete from headrace.process where name = 'pod-old'")
    await connection.execute(
        "insert into headrace.claim (subscription, topic, partition, epoch, token, owner, claimed_offset, next_offset) "
        "values ('shop.wallets', 'wallets', 0, 1, gen_random_uuid(), 'pod-ancient', 0, 9)"
    )
    with pytest.raises(ConfigurationError, match=r"pod-ancient \(version unknown\)"):
        await migrate(connection, "post", known=files)
    await connection.execute("update headrace.claim set committed_at = now() - interval '61 s'")
    assert await migrate(connection, "post", known=files) == ["post/0007_farewell"]


async def test_a_platform_is_among_the_processes_while_it_lives(database_url: str, topic_name: str) -> None:
    platform = notebook(settings_for(database_url), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        (process,) = await fetch(runtime, "select * from headrace.process")
        owners = {row["owner"] for row in await fetch(runtime, "select owner from headrace.claim")}
        assert owners == {process["name"]}
        assert (process["version"], process["post"]) == (VERSION, expected_version("post"))
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from headrace.process") == 0
    await connection.close()


async def test_the_schema_is_ours_whatever_the_search_path(connection: asyncpg.Connection) -> None:
    await connection.execute("create schema elsewhere")
    await connection.execute("set search_path to elsewhere, pg_temp")
    await migrate(connection)
    strays = await connection.fetch(
        "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname not in ('headrace', 'information_schema') and n.nspname not like 'pg\\_%'"
    )
    assert strays == []


async def test_a_migration_that_waits_for_a_lock_lets_others_pass(empty_url: str) -> None:
    await migrate(empty_url)
    holder, other = await connect(empty_url), await connect(empty_url)
    waiting = asyncio.Event()
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.fetch("select * from headrace.claim")
        step = _next("alter table headrace.claim add column novelty int")
        running = asyncio.create_task(
            migrate(empty_url, "pre", lambda line: waiting.set(), known=[*load_migrations(), step])
        )
        await asyncio.wait_for(waiting.wait(), 30)
        # Between two attempts nothing queues behind the migration.
        await asyncio.wait_for(other.fetch("select * from headrace.claim"), 30)
        await transaction.rollback()
        assert await asyncio.wait_for(running, 60) == [str(step)]
    finally:
        await holder.close()
        await other.close()


async def test_a_migration_does_not_wait_for_the_embedded_log(empty_url: str) -> None:
    await migrate(empty_url)
    pool = await open_pool(Settings(), empty_url)
    log = EmbeddedLog(pool)
    await log.start()
    waits: list[str] = []
    try:
        step = _next("create table headrace.novelty (id int)")
        migrating = migrate(empty_url, "pre", waits.append, known=[*load_migrations(), step])
        assert await asyncio.wait_for(migrating, 30) == [str(step)]
        assert waits == [f"applied {step}"]
    finally:
        await log.stop()
        pool.terminate()


async def test_a_complete_schema_waits_for_no_migrator(empty_url: str) -> None:
    """Another migrator holds the lock, and nothing is missing."""
    await migrate(empty_url)
    holder = await connect(empty_url)
    waits: list[str] = []
    try:
        await holder.execute("select pg_advisory_lock($1)", migrations._ADVISORY_LOCK)
        assert await asyncio.wait_for(migrate(empty_url, "pre", waits.append), 30) == []
        assert waits == []
    finally:
        await holder.close()


async def test_a_user_who_may_not_create_is_told_what_to_grant(
    postgres: PostgresServer, connection: asyncpg.Connection
) -> None:
    if postgres.is_external:
        pytest.skip("a role is the whole server's; only on a server of our own")
    await connection.execute(f"set role {GUEST}")
    with pytest.raises(ConfigurationError, match="grant create on database"):
        await migrate(connection)
    await connection.execute("reset role")
    await migrate(connection)
