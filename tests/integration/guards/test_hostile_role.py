"""Defaults of a role that would break the platform: each is set anew by every session, or refused at start."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest

from headrace.database.pool import open_pool
from headrace.errors import ConfigurationError
from headrace.log.memory import MemoryLog
from headrace.settings import Settings
from tests.support.auditing import assert_promises_hold
from tests.support.platform import client, execute, publish, running, settings_for, spread, states, until_settled
from tests.support.postgres import PostgresServer
from tests.support.services import echoing
from tests.support.waiting import until

HOSTILE = {
    "search_path": "shadows",
    "statement_timeout": "'1ms'",
    "lock_timeout": "'1ms'",
    "idle_in_transaction_session_timeout": "'1ms'",
    "idle_session_timeout": "'50ms'",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "client_encoding": "latin1",
    "timezone": "'Asia/Kathmandu'",
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-10",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "check_function_bodies": "off",
    "row_security": "off",
    "enable_indexscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "work_mem": "'64kB'",
    "client_min_messages": "debug1",
}
SHADOWS = """
create schema shadows;
create table shadows.claim (id int); create table shadows.state (id int); create table shadows.ledger (id int);
"""
PAGES = [f"page-{number}" for number in range(10)]


async def make_hostile(url: str, defaults: Mapping[str, str]) -> None:
    """Give the address's role these defaults in the address's database."""
    parts = urlsplit(url)
    role = f"alter role {parts.username} in database {parts.path[1:]} set"
    await execute(url, "".join(f"{role} {setting} = {value};" for setting, value in defaults.items()))


async def test_defaults_of_a_role_change_nothing(postgres: PostgresServer, topic_name: str) -> None:
    """Migrations, batches, emits, states and queries are as on any other server."""
    async with postgres.database(migrated=False) as url:
        await execute(url, SHADOWS)
        await make_hostile(url, HOSTILE)
        platform = echoing(settings_for(url), topic_name, lambda event: None, "sync")
        async with running(platform, MemoryLog()) as runtime, client(platform) as http:
            await publish(runtime, *spread(topic_name, PAGES, 2))
            await until_settled(runtime, "notes", "echoes")
            assert {page: kept["numbers"] for page, kept in (await states(runtime, "notes", "page")).items()} == {
                page: [1, 2] for page in PAGES
            }
            assert sorted((await states(runtime, "echoes", "page"))["all"]["numbers"]) == [1] * 10 + [2] * 10

            async def answers() -> bool:
                answer = await http.get("/state/notes/page/page-1")
                assert answer.status_code == 200, answer.text
                return bool(answer.json()["numbers"] == [1, 2])

            await until(answers, "a query is answered")
        await assert_promises_hold(postgres.of_superuser(url))


@pytest.mark.parametrize(
    ("setting", "value", "advice"),
    [
        ("transaction_timeout", "'1s'", "alter role .* reset transaction_timeout"),
        ("search_path", "shadows, pg_catalog", "alter role .* set search_path = public"),
    ],
)
async def test_default_that_no_session_can_set_is_refused(
    database_url: str, setting: str, value: str, advice: str
) -> None:
    await execute(database_url, SHADOWS)
    await make_hostile(database_url, {setting: value})
    with pytest.raises(ConfigurationError, match=rf"^HEADRACE_DATABASE: .*{setting}.*{advice}") as refused:
        await open_pool(Settings(), database_url)
    assert "\n" not in str(refused.value)
