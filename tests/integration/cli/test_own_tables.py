"""A team's own tables: other programs make them, and handlers find them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from tests.support.command import headrace
from tests.support.service import Service
from tests.support.small_app import publish
from tests.support.waiting import until

APP = """
from fastapi import FastAPI
from headrace import Event, Headrace, Transaction

events = Headrace("small")
things = events.subscription("things")

class Thing(Event, type="thing.made", topic="{topic}", key="name"):
    name: str

@things.on(Thing)
async def write_down(event: Thing, transaction: Transaction) -> None:
    await transaction.execute("insert into journal (name) values ($1)", event.name)

app = FastAPI(lifespan=events.lifespan)
app.include_router(events.router)
"""

Start = Callable[..., Awaitable[Service]]


async def check_that_the_table_is_found(service: Service, url: str) -> None:
    """Make the handler's table as psql or Alembic would; check that the handler writes to it."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("create table journal (name text)")
        await publish(service, "one")

        async def names() -> list[str]:
            return [row["name"] for row in await connection.fetch("select name from journal")]

        await until(names, "the handler has written")
        assert await names() == ["one"]
    finally:
        await connection.close()


async def test_embedded_database_takes_tables_of_other_programs(start: Start, tmp_path: Path, topic_name: str) -> None:
    (tmp_path / "small.py").write_text(APP.format(topic=topic_name))
    settings = {"HEADRACE_DATA_DIR": str(tmp_path / "data")}
    before = await headrace(tmp_path, "database", "url", settings=settings)
    assert before.code == 1
    assert before.err == (
        f"headrace: no embedded database runs in HEADRACE_DATA_DIR={tmp_path / 'data'}; start headrace run first.\n"
    )
    service = await start({})
    said = await headrace(tmp_path, "database", "url", settings=settings)
    assert said.code == 0, said.err
    await check_that_the_table_is_found(service, said.out.strip())
    connection = await asyncpg.connect(said.out.strip())
    schema = await connection.fetchval("select schemaname from pg_tables where tablename = 'journal'")
    await connection.close()
    assert schema == "public"
    await service.kill()
    after = await headrace(tmp_path, "database", "url", settings=settings)
    assert (after.code, after.out) == (1, "")


async def test_server_is_named_by_its_own_setting(tmp_path: Path) -> None:
    settings = {"HEADRACE_DATABASE": "postgresql://shop@db/shop"}
    said = await headrace(tmp_path, "database", "url", settings=settings)
    assert (said.code, said.err) == (1, "headrace: HEADRACE_DATABASE names a server; use its address.\n")


async def test_role_with_the_schemas_name_is_warned_about(
    start: Start, tmp_path: Path, topic_name: str, database_url: str
) -> None:
    """PostgreSQL's default search path begins with the schema that has the role's name, here with the platform's."""
    name, role = urlsplit(database_url).path.strip("/"), urlsplit(database_url).username
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"alter database {name} set search_path = headrace, public")
    advice = f"run: alter role {role} set search_path = public"
    settings = {"HEADRACE_DATABASE": database_url, "HEADRACE_LOG": "memory"}

    migrated = await headrace(tmp_path, "migrate", settings=settings)
    assert migrated.code == 0
    assert migrated.err.startswith(f"warning: the role {role} makes its tables in the platform's schema headrace")
    assert advice in migrated.err
    examined = await headrace(tmp_path, "doctor", settings=settings | {"HEADRACE_MANAGEMENT_PORT": "0"})
    assert examined.code == 0, examined.out
    assert advice in next(line for line in examined.out.splitlines() if line.startswith("warn  search path"))

    (tmp_path / "small.py").write_text(APP.format(topic=topic_name))
    service = await start(settings)
    await check_that_the_table_is_found(service, database_url)

    await connection.execute(f"alter role {role} in database {name} set search_path = public")
    await connection.close()
    again = await headrace(tmp_path, "migrate", settings=settings)
    assert (again.code, again.err) == (0, "")
    healthy = await headrace(tmp_path, "doctor", settings=settings | {"HEADRACE_MANAGEMENT_PORT": "0"})
    assert "search path" not in healthy.out
