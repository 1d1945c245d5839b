"""A Postgres that takes no more connections, that takes no writes, and that fails over to one which knows less.

Events are accepted meanwhile, since the log is not Postgres; they are applied once when it is back, and none is blamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from headrace import Headrace
from headrace.database.failures import CALL_ERRORS
from headrace.log.memory import MemoryLog
from headrace.runtime import Runtime
from tests.integration.guards.support import assert_unavailable, impatient, publish_all
from tests.support.auditing import assert_promises_hold
from tests.support.link import Link, through
from tests.support.platform import (
    client,
    has_pages,
    notebook,
    pages,
    running,
    sample,
    settings_for,
    until_settled,
    value,
)
from tests.support.postgres import PostgresServer
from tests.support.services import entered
from tests.support.waiting import until

PAGES = [f"page-{number}" for number in range(8)]


async def assert_applied(runtime: Runtime, *numbers: int) -> None:
    """Every page has these numbers in this order, and no event was blamed for the outage."""
    await until_settled(runtime, "notes")
    assert await pages(runtime) == {page: list(numbers) for page in PAGES}
    assert sample(runtime, "events_parked_total") == 0
    assert await value(runtime, "select count(*) from headrace.dead_letter") == 0


async def is_refused(runtime: Runtime) -> bool:
    """True once the engine was refused by the database."""
    return sample(runtime, "db_errors_total", kind="unavailable") > 0


@asynccontextmanager
async def all_connections(postgres: PostgresServer, url: str) -> AsyncIterator[None]:
    """Take every connection that the server has for ordinary users, those of the platform as well."""
    async with AsyncExitStack() as stack:
        own = await asyncpg.connect(postgres.of_superuser(url))
        stack.callback(own.terminate)
        ends = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'headrace'"

        async def has_one_left() -> bool:
            try:
                connection = await asyncpg.connect(url)
            except CALL_ERRORS:
                return False
            stack.callback(connection.terminate)
            return True

        async def are_taken() -> bool:
            while await has_one_left():
                pass
            return not await own.fetchval(ends)

        await until(are_taken, "others have every connection")
        yield


async def test_server_without_connections_left_is_waited_for(
    postgres: PostgresServer, database_url: str, topic_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One that runs goes on later, and one that starts says what it waits for; no log line has a traceback."""
    if postgres.is_external:
        pytest.skip("HEADRACE_TEST_POSTGRES is not ours to fill")
    platform, log = notebook(settings_for(database_url), topic_name), MemoryLog()
    async with running(platform, log) as runtime, client(platform) as http:
        await publish_all(http, PAGES, 1)
        await assert_applied(runtime, 1)
        async with all_connections(postgres, database_url):
            await publish_all(http, PAGES, 2)
            await until(lambda: is_refused(runtime), "the engine is refused")
            assert_unavailable(await http.get(f"/state/notes/notes/{PAGES[0]}"))
            late = notebook(settings_for(database_url), topic_name, service="late")
            starting = asyncio.create_task(_run_until_connected(late, log))
            await until(lambda: b"remaining connection slots" in ready_report(late), "another one waits, and says why")
        await assert_applied(runtime, 1, 2)
        await starting
    assert not [said for said in caplog.records if said.exc_info], caplog.text
    await assert_promises_hold(database_url)


def ready_report(platform: Headrace) -> bytes:
    """Return the answer of the readiness probe."""
    return platform.runtime.health.ready_report().body if platform.runtime is not None else b""


async def _run_until_connected(platform: Headrace, log: MemoryLog) -> None:
    async with running(platform, log):
        pass


async def test_smallest_pool_serves_many_partitions(database_url: str, topic_name: str) -> None:
    """While somebody holds all of it, queries are told to come again; afterwards nothing waits for ever."""

    async def enter(event: object) -> None: ...

    settings = impatient(settings_for(database_url, partitions=8), pool_size=2)
    platform = entered(settings, topic_name, "transaction", lambda event: None, enter)
    async with running(platform, MemoryLog()) as runtime, client(platform) as http:
        await publish_all(http, PAGES, 1)
        await assert_applied(runtime, 1)
        assert runtime.pool is not None
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(runtime.pool.acquire())
            await publish_all(http, PAGES, 2)
            assert_unavailable(await http.get(f"/state/notes/notes/{PAGES[0]}"))
        answers = await asyncio.gather(*(http.get(f"/state/notes/notes/{page}") for page in PAGES * 8))
        assert {answer.status_code for answer in answers} == {200}
        await assert_applied(runtime, 1, 2)
    await assert_promises_hold(database_url)


async def test_failover_that_lost_commits_applies_them_again(topic_name: str) -> None:
    """The primary dies with what its standby does not have yet; until it is promoted, it takes no writes."""
    primary = PostgresServer(is_durable=False)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(primary.stop)
        await primary.start()
        url = await stack.enter_async_context(primary.database())
        standby = await primary.follower()
        stack.push_async_callback(standby.stop)
        await standby.start()
        link = await stack.enter_async_context(Link(urlsplit(url).port or 0))
        platform = notebook(impatient(settings_for(through(link, url))), topic_name)
        async with running(platform, MemoryLog()) as runtime, client(platform) as http:
            await publish_all(http, PAGES, 1)
            await assert_applied(runtime, 1)
            await until(lambda: _has_pages(standby.moved(url), len(PAGES)), "the standby follows")
            await standby.execute("alter system set primary_conninfo = ''")
            await standby.execute("select pg_reload_conf()")
            await publish_all(http, PAGES, 2)
            await assert_applied(runtime, 1, 2)
            link.server_port = urlsplit(standby.url).port or 0
            link.reset()
            await publish_all(http, PAGES, 3)
            await until(lambda: is_refused(runtime), "the engine is refused")
            assert (await http.get(f"/state/notes/notes/{PAGES[0]}")).json()["numbers"] == [1]
            await standby.promote()
            await until(lambda: has_pages(runtime, {page: [1, 2, 3] for page in PAGES}), "all are applied")
            await assert_applied(runtime, 1, 2, 3)
        await assert_promises_hold(standby.moved(url))


async def _has_pages(url: str, count: int) -> bool:
    connection = await asyncpg.connect(url)
    try:
        return bool(await connection.fetchval("select count(*) = $1 from headrace.state", count))
    finally:
        await connection.close()


async def test_black_hole_before_postgres_is_left_in_time(database_url: str, topic_name: str) -> None:
    """Nothing passes, and nobody is told: queries are answered, and the batch is applied once when it passes again."""
    async with Link(urlsplit(database_url).port or 0) as link:
        platform = notebook(impatient(settings_for(through(link, database_url))), topic_name)
        async with running(platform, MemoryLog()) as runtime, client(platform) as http:
            await publish_all(http, PAGES, 1)
            await assert_applied(runtime, 1)
            link.is_open = False
            await publish_all(http, PAGES, 2)
            assert_unavailable(await http.get(f"/state/notes/notes/{PAGES[0]}"))
            await until(lambda: sample(runtime, "db_errors_total") > 0, "the engine does not wait for ever")
            link.is_open = True
            await assert_applied(runtime, 1, 2)
    await assert_promises_hold(database_url)
