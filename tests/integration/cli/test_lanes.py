"""`headrace lanes` and `headrace subscriptions`, on the database and through the API of a running platform."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg

from headrace.sql.subscription import REMOVE
from tests.support.command import headrace
from tests.support.service import Service
from tests.support.small_app import publish
from tests.support.waiting import until

Start = Callable[..., Awaitable[Service]]

ROWS = """
insert into headrace.claim (subscription, topic, partition, epoch, token, owner, claimed_offset, next_offset)
values ($1, 'things', 0, 1, gen_random_uuid(), $2, 0, 9);
"""
LANE = """
insert into headrace.lane (subscription, partition, key, attempts, due_at, error)
values ($1, 0, $2, 3, now() + interval '1 hour', 'no \x1b[2J ink')
"""
PARKED = """
insert into headrace.parked (subscription, partition, key, number, topic, "offset", "timestamp", value, headers, source,
                             event_id, type, reason)
values ($1, 0, $2, 1, 'things', 7, 0, '', '\\x90', '/s', '1', 'thing.made', 'handler_error')
"""
STATE = "insert into headrace.state values ($1, 'seen', 'ada', 0, 1, '{}')"
LETTER = """
insert into headrace.dead_letter (subscription, topic, partition, "offset", "timestamp", headers, reason, error)
values ($1, 'things', 0, 1, 0, '\\x90', 'decode', 'x')
"""
LEDGER = """
insert into headrace.ledger (subscription, topic, partition, sequence, kind, epoch, first_offset, next_offset, applied,
                             skipped, parked, dead, ids, emits)
values ($1, 'things', 0, 5, 0, 1, 0, 9, 9, 0, 0, 0, '', '\\x90')
"""
CHANGE = (
    "insert into headrace.state_change (subscription, state, key, action, by) values ($1, 'seen', 'ada', 'put', 'me')"
)
TABLES = ("claim", "lane", "parked", "state", "dead_letter", "ledger", "state_change")
OF_SUBSCRIPTIONS = """
select table_name from information_schema.columns join information_schema.tables using (table_schema, table_name)
where table_schema = 'headrace' and column_name = 'subscription' and table_name !~ '^ledger_'
"""


async def fill(address: str, group: str, owner: str | None = None) -> None:
    """Write what a subscription leaves behind."""
    connection = await asyncpg.connect(address)
    await connection.execute(ROWS.strip().rstrip(";"), group, owner)
    for key in (b"ada", b"\xff"):
        await connection.execute(LANE, group, key)
        await connection.execute(PARKED, group, key)
    for sql in (STATE, LETTER, LEDGER, CHANGE):
        await connection.execute(sql, group)
    await connection.close()


async def rows(address: str, sql: str, *arguments: Any) -> list[Any]:
    """The rows of a query."""
    connection = await asyncpg.connect(address)
    found = await connection.fetch(sql, *arguments)
    await connection.close()
    return list(found)


async def groups_of(address: str) -> dict[str, set[str]]:
    """The groups that each table holds."""
    return {
        table: {row[0] for row in await rows(address, f"select distinct subscription from headrace.{table}")}
        for table in TABLES
    }


async def test_lanes_in_the_database_are_listed_and_retried(folder: Path, database_url: str) -> None:
    settings = {"HEADRACE_DATABASE": database_url}
    for group in ("small.things", "other.things", "small.others"):
        await fill(database_url, group)
    listed = await headrace(folder, "lanes", "list", "small.things", settings=settings)
    assert listed.code == 0, listed.err
    assert len(listed.out.splitlines()) == 3
    assert "no \\x1b[2J ink" in listed.out and "\x1b" not in listed.out
    assert "things/0/7" in listed.out and "b'\\xff'" in listed.out
    narrow = await headrace(folder, "lanes", "list", "things", "--key", "ada", "--json", settings=settings)
    assert [lane["subscription"] for lane in json.loads(narrow.out)] == ["other.things", "small.things"]

    retried = await headrace(folder, "lanes", "retry", "small.things", "--key", "ada", settings=settings)
    assert (retried.code, retried.out) == (0, "1 lane to be retried by the owner\n"), retried.err
    due = "select subscription, key from headrace.lane where due_at <= now() order by subscription, key"
    assert [tuple(row) for row in await rows(database_url, due)] == [("small.things", b"ada")]
    nobody = await headrace(folder, "lanes", "retry", "small.things", "--key", "bob", settings=settings)
    assert (nobody.code, nobody.out) == (1, "0 lanes to be retried by the owner\n")
    neither = await headrace(folder, "lanes", "retry", "small.things", settings=settings)
    assert neither.code == 2 and "--all" in neither.err


async def test_lanes_of_a_running_platform_are_seen_over_http(start: Start, folder: Path) -> None:
    service = await start({"HEADRACE_ENGINE_RETRY_FIRST_SECONDS": "200"})
    await publish(service, "picky")

    async def lanes() -> list[dict[str, Any]]:
        said = await headrace(folder, "lanes", "list", "things", "--json", "--url", service.url)
        assert said.code == 0, said.err
        return list(json.loads(said.out))

    await until(lanes, "the event is parked", 60)
    (lane,) = await lanes()
    assert (lane["subscription"], lane["key"], lane["head"]["type"]) == ("things", "picky", "thing.made")
    shown = await headrace(folder, "lanes", "list", "things", "--url", service.url)
    assert "not \\x1b[31myet" in shown.out
    retried = await headrace(folder, "lanes", "retry", "things", "--all", "--url", service.url)
    assert (retried.code, retried.out) == (0, "1 lane to be retried by the owner\n"), retried.err
    unknown = await headrace(folder, "lanes", "list", "purses", "--url", service.url)
    assert unknown.code == 1 and "there is no subscription 'purses'" in unknown.err


async def test_what_is_left_of_a_subscription_is_listed_and_removed(folder: Path, database_url: str) -> None:
    settings = {"HEADRACE_DATABASE": database_url}
    for group in ("small.old", "small.older"):
        await fill(database_url, group)
    listed = await headrace(folder, "subscriptions", "list", "--json", settings=settings)
    assert listed.code == 0, listed.err
    (old, older) = json.loads(listed.out)
    assert (old["group"], older["group"]) == ("small.old", "small.older")
    assert {name: old[name] for name in ("partitions", "states", "lanes", "dead_letters", "unpublished")} == {
        "partitions": 1,
        "states": 1,
        "lanes": 2,
        "dead_letters": 1,
        "unpublished": 1,
    }
    table = await headrace(folder, "subscriptions", "list", settings=settings)
    assert len(table.out.splitlines()) == 3

    doubted = await headrace(folder, "subscriptions", "remove", "small.old", settings=settings, answer="n\n")
    assert doubted.code == 1
    assert "Remove small.old with 1 state, 2 lanes and 1 open dead letter?" in doubted.err
    assert "may not be in the log yet" in doubted.err
    assert all("small.old" in groups for groups in (await groups_of(database_url)).values())
    removed = await headrace(folder, "subscriptions", "remove", "small.old", "--yes", settings=settings)
    assert removed.code == 0, removed.err
    assert removed.out.startswith("small.old is removed: ")
    assert await groups_of(database_url) == {table: {"small.older"} for table in TABLES}
    again = await headrace(folder, "subscriptions", "remove", "small.old", "--yes", settings=settings)
    assert again.code == 1 and "knows no subscription 'small.old'" in again.err


async def test_nothing_of_a_subscription_is_forgotten(database_url: str) -> None:
    """A table that gets rows of subscriptions is one that they are removed from."""
    assert {row[0] for row in await rows(database_url, OF_SUBSCRIPTIONS)} == set(REMOVE)


async def test_a_subscription_in_use_is_not_removed(folder: Path, database_url: str) -> None:
    settings = {"HEADRACE_DATABASE": database_url}
    await fill(database_url, "small.things", owner="pod-1/17/2a")
    command = ["subscriptions", "remove", "small.things", "--yes"]
    owned = await headrace(folder, *command, settings=settings)
    assert owned.code == 1 and "pod-1/17/2a" in owned.err and "--owner-died" in owned.err
    declared = await headrace(folder, *command, "--owner-died", "--app", "small:app", settings=settings)
    assert declared.code == 1 and "small:app declares small.things" in declared.err
    assert all(groups == {"small.things"} for groups in (await groups_of(database_url)).values())
    removed = await headrace(folder, *command, "--owner-died", settings=settings)
    assert removed.code == 0, removed.err
    assert not any((await groups_of(database_url)).values())
